"""What deciding costs: order and crop windows of an epoch, and of a step.

``python -m benchmarks.sampling``: an ImageNet epoch's permutation, the windows and flips of all its
images, and one step's share of a worker, in one process.
"""

from __future__ import annotations

import argparse
import statistics
import tracemalloc
from pathlib import Path

import numpy as np

from benchmarks.measure import interleaved, machine, write_json
from benchmarks.results import check_files
from dali_pipeline.augment import Stream, flips, training_windows
from dali_pipeline.order import permutation, worker_images
from hvd_utils import failure
from hvd_utils.numbers_given import positive

CHUNK = 8192  # windows are computed by the minibatch, never for the whole epoch at once


def epoch_order(images: int) -> None:
    """Compute the permutation of an epoch."""
    permutation.cache_clear()
    permutation(1, 0, images)


def windows_of(ids: np.ndarray) -> None:
    """Compute windows and flips of these images of 500 × 375 pixels."""
    stream = Stream(1, np.zeros_like(ids), ids)
    training_windows(stream, np.full(len(ids), 375), np.full(len(ids), 500), 0.08, 4 / 3)
    flips(stream)


def epoch_windows(images: int) -> None:
    """Compute windows and flips of all images, a minibatch at a time."""
    for start in range(0, images, CHUNK):
        windows_of(np.arange(start, min(start + CHUNK, images)))


def worker_step(images: int) -> None:
    """Compute what one of 256 workers of 32 images needs for a step of an epoch under way."""
    windows_of(worker_images(1, 17, 200, workers=256, batch=32, num_images=images)[1])


def peak_megabytes(run) -> float:
    """Return the most memory that ``run`` held at any time."""
    tracemalloc.start()
    run()
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return highest / 1e6


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling", description=__doc__)
    parser.add_argument("--images", type=positive, default=1_281_167, help="of an epoch")
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    check_files(options)

    candidates = {
        "order of an epoch": lambda: epoch_order(options.images),
        "windows and flips of an epoch": lambda: epoch_windows(options.images),
        "a worker's share of a step": lambda: worker_step(options.images),
    }
    seconds = {
        name: statistics.median(values)
        for name, values in interleaved(candidates, options.rounds).items()
    }
    memory = {name: peak_megabytes(run) for name, run in candidates.items()}
    print(f"{machine()}; {options.images:,} images")
    print(f"{'':30} {'ms (median)':>12} {'peak MB':>8}")
    for name in candidates:
        print(f"{name:30} {1000 * seconds[name]:12.2f} {memory[name]:8.1f}")
    write_json(options.json, {"seconds": seconds, "peak_megabytes": memory})


if __name__ == "__main__":
    failure.run(main)
