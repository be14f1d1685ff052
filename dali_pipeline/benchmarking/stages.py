"""Our pipeline, from reading alone to the batches of the trainer.

``full`` is the trainer's very loader, decoding on the CPU's threads, and ``full_gpu`` and
``full_hardware`` are the same with --decode gpu and hardware. On a CPU the stages before it are the
same loader with less done after decoding; on a GPU, graphs with less in them. The difference of two
is what a step costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def, types

from dali_pipeline.benchmarking.bench import Bench, Missing, Stream
from dali_pipeline.loading.dali.cpu_transforms import CpuTransforms
from dali_pipeline.loading.dali.graph import Target, decoded_windows
from dali_pipeline.loading.dali.loader import DaliLoader
from dali_pipeline.loading.dali.reader import EncodedReader
from dali_pipeline.loading.loader import make_loader
from dali_pipeline.loading.prefetch import prefetched
from dali_pipeline.loading.to_device import current_stream
from dali_pipeline.sampling.plan import TrainingBatch

STEPS = 100_000  # of a loader's run: more than will be measured
READ_AHEAD = 2  # batches


def read(bench: Bench) -> Stream:
    """Return the stream of encoded images, read as the plan orders them."""
    reader = EncodedReader(bench.plan.train)
    return Stream("file bytes read", prefetched(map(reader.read, bench.ids()), READ_AHEAD))


def decode(bench: Bench) -> Stream:
    """Return the stream of decoded crop windows, uint8 of any size."""
    return Stream("+ crop window decoded", _partly(bench, Undone, resolution=None))


def augment(bench: Bench) -> Stream:
    """Return the stream of crops resized and flipped, uint8 (224, 224, 3)."""
    resolution = bench.plan.settings.resolution
    return Stream("+ resized and flipped", _partly(bench, Unnormalised, resolution))


def full(bench: Bench) -> Stream:
    """Return the stream of batches of the ``dali`` loader, as the trainer gets them."""
    decode = bench.plan.settings.decode
    by = f", --decode {decode}" if bench.device.type == "cuda" else ""
    return Stream(f"our pipeline: batches as the trainer gets them{by}", _loader("dali", bench))


def full_gpu(bench: Bench) -> Stream:
    """Return the stream of the ``dali`` loader with --decode gpu."""
    return _decoded_by("gpu", bench)


def full_hardware(bench: Bench) -> Stream:
    """Return the stream of the ``dali`` loader with --decode hardware."""
    return _decoded_by("hardware", bench)


def _decoded_by(way: str, bench: Bench) -> Stream:
    if bench.device.type != "cuda":
        raise Missing("it decodes on a GPU, and this is a CPU")
    if way in bench.failed:
        raise Missing(bench.failed[way])
    settings = bench.plan.settings.model_copy(update={"decode": way})
    return full(replace(bench, plan=replace(bench.plan, settings=settings)))


def torchvision_loader(bench: Bench) -> Stream:
    """Return the stream of batches of the ``torchvision`` loader, our reference."""
    return Stream("our reference: --loader torchvision", _loader("torchvision", bench))


def _loader(kind: str, bench: Bench) -> Iterator:
    loader = make_loader(kind, bench.plan, device=bench.device, threads=bench.threads)
    return loader.training(0, STEPS)


class Undone(CpuTransforms):
    """Leaves crops as they were decoded."""

    def training(self, crops: Sequence[torch.Tensor], batch: TrainingBatch) -> Any:
        """Return the crops."""
        return crops


class Unnormalised(CpuTransforms):
    """Resizes and mirrors, no more."""

    def _normalised(
        self, count: int, side: int, finish: Callable[[int], torch.Tensor], erased: Any = None
    ) -> Any:
        return list(self._pool.map(finish, range(count)))


def _partly(bench: Bench, cpu_transforms: type[CpuTransforms], resolution: int | None) -> Iterator:
    if bench.device.type == "cuda":
        return _run(bench, resolution)
    loader = DaliLoader(bench.plan, bench.device, bench.threads, cpu_transforms)
    return loader.training(0, STEPS)


def _run(bench: Bench, resolution: int | None) -> Iterator:
    pipeline = _graph(
        bench,
        resolution,
        batch_size=bench.plan.training_size,
        num_threads=bench.threads,
        device_id=bench.device.index,
        prefetch_queue_depth=2,
    )
    pipeline.build()
    stream = current_stream(bench.device)  # or the host waits for each batch
    while True:
        yield pipeline.run(stream)


@pipeline_def
def _graph(bench: Bench, resolution: int | None):
    encoded, start, shape, mirror = fn.external_source(
        _columns(bench),
        num_outputs=4,
        batch=True,
        dtype=[types.UINT8] + 3 * [types.INT32],
        ndim=[1, 1, 1, 0],
    )
    target = Target(True, bench.plan.settings.decode, 0, antialias=True, largest=(0, 0))
    images: Any = decoded_windows(encoded, start, shape, target)
    if resolution is None:
        return images, mirror
    size = [resolution, resolution]
    images = fn.resize(images, size=size, interp_type=types.INTERP_LINEAR, antialias=True)
    return fn.flip(images, horizontal=mirror)


def _columns(bench: Bench) -> Iterator[tuple]:
    """Yield encoded images with corners, sides and flips."""
    reader = EncodedReader(bench.plan.train)
    for place in bench.places():
        batch = bench.plan.training_batch(*place)
        top, left, height, width = batch.windows
        corners, sides = np.stack([top, left], axis=1), np.stack([height, width], axis=1)
        yield reader.read(batch.ids), corners, sides, batch.flips
