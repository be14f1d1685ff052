"""Our own pipeline, from reading alone to the batches that the trainer gets.

``full`` is the trainer's very loader. The stages before it are graphs of their own, each with one
operation more, so that the difference of two is what that operation costs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from nvidia.dali import fn, pipeline_def, types

from dali_pipeline.benchmarking.bench import Bench, Stream, in_threads
from dali_pipeline.loader import make_loader

STEPS = 100_000  # of a loader's run: more than will be measured


def read(bench: Bench) -> Stream:
    """Return the stream of encoded images, read as the plan orders them."""
    images = in_threads(bench.plan.train.read, bench.ids(), bench.threads)
    return Stream("file bytes read", images)


def decode(bench: Bench) -> Stream:
    """Return the stream of decoded crop windows, uint8 of any size."""
    return Stream("+ crop window decoded", _run(bench, resolution=None))


def augment(bench: Bench) -> Stream:
    """Return the stream of crops resized and flipped, uint8 (224, 224, 3)."""
    resolution = bench.plan.settings.resolution
    return Stream("+ resized and flipped", _run(bench, resolution))


def full(bench: Bench) -> Stream:
    """Return the stream of batches of the ``dali`` loader, as the trainer gets them."""
    return Stream("our pipeline: batches as the trainer gets them", _loader("dali", bench))


def torchvision_loader(bench: Bench) -> Stream:
    """Return the stream of batches of the ``torchvision`` loader, our reference."""
    return Stream("our reference: --loader torchvision", _loader("torchvision", bench))


def _loader(kind: str, bench: Bench) -> Iterator:
    loader = make_loader(kind, bench.plan, device=bench.device, threads=bench.threads)
    return loader.training(0, STEPS)


def _run(bench: Bench, resolution: int | None) -> Iterator:
    on_gpu = bench.device.type == "cuda"
    pipeline = _graph(
        bench,
        resolution,
        batch_size=bench.plan.training_size,
        num_threads=bench.threads,
        device_id=bench.device.index if on_gpu else None,
        prefetch_queue_depth=2,
    )
    pipeline.build()
    while True:
        yield pipeline.run()


@pipeline_def
def _graph(bench: Bench, resolution: int | None):
    data, start, shape, mirror = fn.external_source(
        _columns(bench),
        num_outputs=4,
        batch=True,
        dtype=[types.UINT8] + 3 * [types.INT32],
        ndim=[1, 1, 1, 0],
    )
    images = fn.decoders.image_slice(
        data if bench.plan.train.packed else fn.io.file.read(data),
        start=start,
        shape=shape,
        axis_names="HW",
        device="mixed" if bench.device.type == "cuda" else "cpu",
        output_type=types.RGB,
        adjust_orientation=False,
    )
    if resolution is None:
        return images, mirror
    size = [resolution, resolution]
    images = fn.resize(images, size=size, interp_type=types.INTERP_LINEAR, antialias=True)
    return fn.flip(images, horizontal=mirror)


def _columns(bench: Bench) -> Iterator[tuple]:
    """Yield paths, or the images themselves of a packed set, with corners, sides and flips."""
    index = bench.plan.train
    for place in bench.places():
        batch, (_, ids) = bench.plan.training_batch(*place), bench.plan.training_ids(*place)
        content = map(index.read, ids) if index.packed else (index.path(i).encode() for i in ids)
        top, left, height, width = batch.windows
        yield (
            [np.frombuffer(item, np.uint8) for item in content],
            np.stack([top, left], axis=1),
            np.stack([height, width], axis=1),
            batch.flips,
        )
