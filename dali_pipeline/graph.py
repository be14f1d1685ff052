"""The DALI graphs: from a planned batch to normalised images, on the GPU or the CPU.

Each graph is one function. ``source`` yields planned batches; everything random is already in them.
Resizing is bilinear with antialiasing, which is what PIL and torchvision do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from nvidia.dali import fn, pipeline_def, types

from dali_pipeline.plan import TrainingBatch, ValidationBatch
from dali_pipeline.statistics import MEAN, STD


class _Columns:
    """The arrays of each planned batch, from the beginning whenever it is iterated."""

    def __init__(self, source: Iterable, columns: Callable) -> None:
        self._source = source
        self._columns = columns

    def __iter__(self):
        return map(self._columns, iter(self._source))


def _inputs(source: Iterable, columns: Callable, ndim: list[int]):
    """Feed the graph with the arrays that ``columns`` takes from each planned batch."""

    return fn.external_source(
        _Columns(source, columns),
        num_outputs=len(ndim),
        batch=True,
        dtype=[types.UINT8] + [types.INT32] * (len(ndim) - 1),
        ndim=ndim,
        cycle="raise",
    )


def _encoded_paths(paths: Iterable[str]) -> list[np.ndarray]:
    return [np.frombuffer(path.encode(errors="surrogateescape"), dtype=np.uint8) for path in paths]


def _normalise(images, mirror=None):
    return fn.crop_mirror_normalize(
        images,
        mirror=mirror,
        mean=[255 * value for value in MEAN],
        std=[255 * value for value in STD],
        dtype=types.FLOAT,
        output_layout="CHW",
    )


def _training_columns(batch: TrainingBatch) -> tuple:
    start = np.stack([batch.windows.top, batch.windows.left], axis=1)
    shape = np.stack([batch.windows.height, batch.windows.width], axis=1)
    return _encoded_paths(batch.paths), start, shape, batch.flips


@pipeline_def
def training_graph(source: Iterable[TrainingBatch], resolution: int, on_gpu: bool):
    """Return float images (batch, 3, resolution, resolution): only the crop window is decoded."""
    paths, start, shape, mirror = _inputs(source, _training_columns, ndim=[1, 1, 1, 0])
    images = fn.decoders.image_slice(
        fn.io.file.read(paths),
        start=start,
        shape=shape,
        axis_names="HW",
        device="mixed" if on_gpu else "cpu",
        output_type=types.RGB,
        adjust_orientation=False,  # as torchvision, which ignores EXIF orientation
    )
    images = fn.resize(
        images, size=[resolution, resolution], interp_type=types.INTERP_LINEAR, antialias=True
    )
    return _normalise(images, mirror)


def _validation_columns(batch: ValidationBatch) -> tuple:
    return _encoded_paths(batch.paths), batch.placement.size, batch.placement.corner


@pipeline_def
def validation_graph(source: Iterable[ValidationBatch], resolution: int, on_gpu: bool):
    """Return float images (batch, 3, resolution, resolution): resized, then cropped centrally."""
    paths, size, corner = _inputs(source, _validation_columns, ndim=[1, 1, 1])
    images = fn.decoders.image(
        fn.io.file.read(paths),
        device="mixed" if on_gpu else "cpu",
        output_type=types.RGB,
        adjust_orientation=False,
    )
    images = fn.resize(
        images,
        size=fn.cast(size, dtype=types.FLOAT),
        interp_type=types.INTERP_LINEAR,
        antialias=True,
    )
    images = fn.slice(images, start=corner, shape=[resolution, resolution], axis_names="HW")
    return _normalise(images)
