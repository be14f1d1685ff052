"""The DALI graphs: from encoded images to the model's input, on the GPU or on the CPU.

Each graph is one function; everything random comes from the plan. A training image is decoded in
its crop window only. On a GPU all that follows decoding is done there. On a CPU, DALI's resizing
takes as long as its decoding. So the graph ends with decoded pixels, and ``cpu_transforms`` does
the rest.

Resizing is bilinear, by default with antialiasing, which is what PIL and torchvision do. Stored
EXIF orientation is ignored, as they do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from nvidia.dali import fn, pipeline_def, types

from dali_pipeline.loading.interface import MEAN, STD


class Target(NamedTuple):
    """Where and for what a graph decodes."""

    on_gpu: bool
    validation_side: int  # of the model's images, pixels
    antialias: bool
    hw_decoder_load: float  # share of JPEGs for a GPU's hardware decoder
    usual_height: int  # pixels: buffers for such images are made before the first batch
    usual_width: int


@pipeline_def
def training_graph(source: Iterable, target: Target):
    """Return the crops of each item (encoded, start, shape, size, mirror) of ``source``.

    On a GPU float (batch, *size, 3), normalised, of one size in a batch; on a CPU uint8 (height,
    width, 3) of various sizes, from items without ``size`` and ``mirror``.
    """
    ndim = [1, 1, 1, 1, 0] if target.on_gpu else [1, 1, 1]
    encoded, start, shape, *rest = _inputs(source, ndim)
    images = fn.decoders.image_slice(
        encoded, start=start, shape=shape, axis_names="HW", **_decoder(target)
    )
    if not target.on_gpu:
        return images
    size, mirror = rest
    return _normalise(_resize(images, size, target), mirror)


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
    images = _resize(images, size, target)
    side = [target.validation_side, target.validation_side]
    return _normalise(fn.slice(images, start=corner, shape=side, axis_names="HW"))


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
    if not target.on_gpu:
        return {"device": "cpu", **common}
    return {
        "device": "mixed",
        "hw_decoder_load": target.hw_decoder_load,
        "preallocate_height_hint": target.usual_height,
        "preallocate_width_hint": target.usual_width,
        "jpeg_fancy_upsampling": True,  # as libjpeg, and so PIL, upsamples colour
        **common,
    }


def _resize(images, size, target: Target):
    return fn.resize(
        images,
        size=fn.cast(size, dtype=types.FLOAT),
        interp_type=types.INTERP_LINEAR,
        antialias=target.antialias,
    )


def _normalise(images, mirror=None):
    return fn.crop_mirror_normalize(
        images,
        mirror=mirror,
        mean=[255 * value for value in MEAN],
        std=[255 * value for value in STD],
        dtype=types.FLOAT,
        output_layout="HWC",  # channels-last, which the GPU's convolutions take
    )
