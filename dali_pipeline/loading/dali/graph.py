"""The DALI graphs: from encoded images to the model's input, on the GPU or on the CPU.

Each graph is one function; everything random comes from the plan. A training image is decoded in
its crop window only: by the CPU's threads, whose uint8 pixels then go to the GPU, or by the GPU.
On a GPU all that follows decoding is done there. On a CPU, DALI's resizing takes as long as its
decoding. So the graph ends with decoded pixels, and ``cpu_transforms`` does the rest.

Resizing is bilinear, by default with antialiasing, which is what PIL and torchvision do. Stored
EXIF orientation is ignored, as they do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from nvidia.dali import Pipeline, fn, pipeline_def, types

from dali_pipeline.loading.interface import MEAN, STD

# Share of JPEGs for a GPU's hardware decoder. Between 0 and 1, the first images of a batch would be
# decoded by another algorithm than the others, and pixels depend on the number of processes.
HARDWARE_SHARE = {"gpu": 0.0, "hardware": 1.0}

# Of nvJPEG's buffers, bytes for a pixel of the largest image: NVIDIA's ResNet-50 example gives them
# 211,025,920 on the device and 140,544,512 on the host for ImageNet's, of 5,980 x 6,430 pixels
# (github.com/NVIDIA/DALI, docs/examples/use_cases/pytorch/resnet50/main.py). Where an image does
# not fit, they grow, and all of the GPU waits.
DEVICE_BYTES, HOST_BYTES = 5.5, 3.7


class Target(NamedTuple):
    """Where and for what a graph decodes."""

    on_gpu: bool  # what follows decoding
    decode: str  # cpu, or of a GPU: gpu or hardware
    validation_side: int  # of the model's images, pixels
    antialias: bool
    largest: tuple[int, int]  # height and width in pixels that a GPU has buffers for; 0: DALI's own
    half: bool = False  # float16 instead of float32, for a model that rounds its images so itself


@pipeline_def
def training_graph(source: Iterable, target: Target):
    """Return the crops of each item (encoded, start, shape, size, mirror) of ``source``.

    On a GPU float (batch, *size, 3), normalised, of one size in a batch; on a CPU uint8 (height,
    width, 3) of various sizes, from items without ``size`` and ``mirror``.
    """
    ndim = [1, 1, 1, 1, 0] if target.on_gpu else [1, 1, 1]
    encoded, start, shape, *rest = _inputs(source, ndim)
    images = decoded_windows(encoded, start, shape, target)
    if not target.on_gpu:
        return images
    size, mirror = rest
    return _normalise(_resize(images, size, target), target, mirror)


@pipeline_def
def validation_graph(source: Iterable, target: Target):
    """Return the images of each item (encoded, size, corner): resized, then cropped centrally.

    On a GPU float (batch, side, side, 3), normalised; on a CPU whole images, uint8, from items
    (encoded,).
    """
    encoded, *placement = _inputs(source, [1, 1, 1] if target.on_gpu else [1])
    images = fn.decoders.image(encoded, **_decoder(target))
    if not target.on_gpu:
        return images
    size, corner = placement
    images = _resize(_uploaded(images, target), size, target)
    side = [target.validation_side, target.validation_side]
    return _normalise(fn.slice(images, start=corner, shape=side, axis_names="HW"), target)


def decoded_windows(encoded, start, shape, target: Target):
    """Return the crop windows, uint8 (height, width, 3), where what follows them is done."""
    images = fn.decoders.image_slice(
        encoded, start=start, shape=shape, axis_names="HW", **_decoder(target)
    )
    return _uploaded(images, target)


def _uploaded(images, target: Target):
    """Copy what the CPU decoded to the GPU; tests run its graph in pipelines that have none."""
    has_gpu = Pipeline.current().device_id is not None
    return images.gpu() if target.on_gpu and target.decode == "cpu" and has_gpu else images


def _inputs(source: Iterable, ndim: list[int]):
    return fn.external_source(
        source,
        num_outputs=len(ndim),
        batch=True,
        dtype=[types.UINT8] + [types.INT32] * (len(ndim) - 1),
        ndim=ndim,
        cycle="raise",
        no_copy=True,
    )


def _decoder(target: Target) -> dict:
    common = {"output_type": types.RGB, "adjust_orientation": False}
    if target.decode == "cpu":
        return {"device": "cpu", **common}
    return {
        "device": "mixed",
        "hw_decoder_load": HARDWARE_SHARE[target.decode],
        "jpeg_fancy_upsampling": True,  # as libjpeg, and so PIL, upsamples colour
        **_buffers(*target.largest),
        **common,
    }


def _buffers(height: int, width: int) -> dict[str, int]:
    """Return the size of nvJPEG's buffers, for each decoding thread, from the first batch on."""
    if not height * width:
        return {}
    return {
        "preallocate_height_hint": height,
        "preallocate_width_hint": width,
        "device_memory_padding": round(DEVICE_BYTES * height * width),
        "host_memory_padding": round(HOST_BYTES * height * width),
    }


def _resize(images, size, target: Target):
    return fn.resize(
        images,
        size=fn.cast(size, dtype=types.FLOAT),
        interp_type=types.INTERP_LINEAR,
        antialias=target.antialias,
    )


def _normalise(images, target: Target, mirror=None):
    return fn.crop_mirror_normalize(
        images,
        mirror=mirror,
        mean=[255 * value for value in MEAN],
        std=[255 * value for value in STD],
        dtype=types.FLOAT16 if target.half else types.FLOAT,
        output_layout="HWC",  # channels-last, which the GPU's convolutions take
    )
