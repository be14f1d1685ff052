"""One rank of ``benchmarks.allreduce``: sums of ResNet-50's gradients, alone and behind backward.

Rank 0 prints its figures as one line of JSON: medians of seconds, each the slowest rank's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import horovod.torch as hvd
import mpi4py
import numpy as np
import torch

from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend.environment import MB, bucket_mb, prepare
from hvd_utils.horovod_backend.gradient_buckets import buckets
from hvd_utils.nn.cpu import huge_zeros
from hvd_utils.nn.models import build_model
from hvd_utils.training.optimizer import build_optimizer

mpi4py.rc.initialize = False  # MPI reads its variables when it starts
mpi4py.rc.finalize = True
from mpi4py import MPI  # noqa: E402

PIECE_MB = 4  # of the flat buffer, where MPI sums it piece by piece


def turns(candidates: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return each candidate's median seconds; they take turns, and all ranks begin together."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(repeats + 1):
        for name, run in candidates.items():
            MPI.COMM_WORLD.Barrier()
            began = time.perf_counter()
            run()
            slowest = MPI.COMM_WORLD.allreduce(time.perf_counter() - began, MPI.MAX)
            if turn > 0:
                seconds[name].append(slowest)
    return {name: statistics.median(values) for name, values in seconds.items()}


def gradient_sizes() -> list[int]:
    """Return the number of elements of each of ResNet-50's gradients, in the model's order."""
    model = build_model("resnet50", 1000, zero_gamma=True, seed=1)
    return [parameter.numel() for parameter in model.parameters()]


def by_mpi(sizes: list[int], repeats: int) -> dict[str, float]:
    """Return seconds of a copy in memory, and of MPI's own sums in place."""
    comm = MPI.COMM_WORLD
    flat, other = np.zeros((2, sum(sizes)), np.float32)
    tensors = np.split(flat, np.cumsum(sizes)[:-1])
    pieces = np.split(flat, range(PIECE_MB * MB // 4, len(flat), PIECE_MB * MB // 4))

    def add(parts: list[np.ndarray]) -> None:
        for part in parts:
            comm.Allreduce(MPI.IN_PLACE, part)

    candidates: dict[str, Callable[[], object]] = {
        "copy": lambda: np.copyto(other, flat),
        "mpi_flat": lambda: add([flat]),
        "mpi_tensors": lambda: add(tensors),
        "mpi_pieces": lambda: add(pieces),
    }
    return turns(candidates, repeats)


def horovod_alone(sizes: list[int], limit_mb: float) -> Callable[[], None]:
    """Return a function that has Horovod sum gradients of these sizes, as the job hands them on."""
    order = [(index, 4 * size) for index, size in enumerate(sizes)]
    groups = buckets(order, limit_mb or 1e-9)
    gradients = {}
    for group in groups:
        parts = [sizes[index] for index in group]
        block = huge_zeros(sum(parts), torch.float32) if limit_mb else torch.zeros(sum(parts))
        gradients |= zip(group, block.split(parts), strict=True)

    def run() -> None:
        handles = []
        for number, group in enumerate(groups):
            parts = [gradients[index] for index in group]
            if limit_mb:
                name = f"bucket.{number}"
                handles.append(hvd.grouped_allreduce_async_(parts, op=hvd.Sum, name=name))
            else:
                handles.append(hvd.allreduce_async_(parts[0], op=hvd.Sum, name=f"one.{number}"))
        for handle in handles:
            hvd.synchronize(handle)

    return run


def beside(run: Callable[[], None], record: list[float]) -> Callable[[], None]:
    """Return ``run``, which records the CPU seconds that other threads than this one took."""

    def watched() -> None:
        began = time.process_time() - time.thread_time()
        run()
        record.append(time.process_time() - time.thread_time() - began)

    return watched


def behind_backward(
    sizes: list[int], settings: Settings, limit_mb: float, images: int, side: int, repeats: int
) -> dict[str, float]:
    """Return seconds of a step with sums, of one without, of backward, and of sums alone."""
    batch = torch.randn(images, 3, side, side)

    def make_step(optimizer_too: bool) -> Callable[[], None]:
        model = build_model("resnet50", 1000, zero_gamma=True, seed=1)
        optimizer = build_optimizer(model, settings, 1, limit_mb) if optimizer_too else None

        def step() -> None:
            model(batch).sum().backward()
            if optimizer:
                optimizer.synchronize()
            model.zero_grad()

        return step

    forward_only = build_model("resnet50", 1000, zero_gamma=True, seed=1)
    busy: list[float] = []  # Horovod's thread: copying and adding, but also waiting, with MPI
    candidates = {
        "forward": lambda: forward_only(batch).sum(),
        "without": make_step(False),
        "with": beside(make_step(True), busy),
        "alone": horovod_alone(sizes, limit_mb),
    }
    seconds = turns(candidates, repeats)
    return seconds | {"communication_cpu": statistics.median(busy[1:])}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("bandwidth", "hidden"))
    parser.add_argument("--plain", action="store_true", help="Horovod's own defaults")
    parser.add_argument("--bucket-mb", type=float)
    parser.add_argument("--cycle-ms", type=float)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    torch.set_num_threads(1)
    settings = Settings(recipe="benchmark", bucket_mb=options.bucket_mb, cycle_ms=options.cycle_ms)
    limit_mb = 0 if options.plain else bucket_mb(settings, cuda=False)
    sizes = gradient_sizes()
    seconds = {}
    if not options.plain:
        prepare(settings, cuda=False)
    MPI.Init_thread(MPI.THREAD_MULTIPLE)
    if options.what == "bandwidth":
        seconds = by_mpi(sizes, options.repeats)  # before Horovod's thread begins to communicate
    hvd.init()
    if options.what == "bandwidth":
        run = horovod_alone(sizes, limit_mb)
        seconds |= turns({"horovod": run}, 2 * options.repeats)
    else:
        seconds = behind_backward(
            sizes, settings, limit_mb, options.images, options.side, options.repeats
        )
    if hvd.rank() == 0:
        print(json.dumps({"bytes": 4 * sum(sizes), "tensors": len(sizes), "seconds": seconds}))
    hvd.shutdown()


if __name__ == "__main__":
    main()
