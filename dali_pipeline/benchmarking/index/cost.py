"""The cost of an index of ImageNet's size: opening it, and the order and crops of an epoch."""

from __future__ import annotations

import os
import statistics
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dali_pipeline.benchmarking.measure import interleaved, machine, write_json
from dali_pipeline.dataset.index import Index
from dali_pipeline.dataset.index_file import index_path, open_splits, save_index
from dali_pipeline.dataset.open_data import IMAGENET_CLASSES, IMAGENET_TRAIN, IMAGENET_VAL
from dali_pipeline.sampling.crops import Stream, flips, training_windows
from dali_pipeline.sampling.order import images_in_epoch, worker_images

CHUNK = 8192  # orders and windows are computed by the minibatch, never for a whole epoch at once


def epoch_order(images: int) -> None:
    """Compute the order of an epoch, a minibatch at a time."""
    for start in range(0, images, CHUNK):
        images_in_epoch(1, 0, np.arange(start, min(start + CHUNK, images)), images)


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
    batch = min(32, images // 256 or 1)
    windows_of(worker_images(1, 17, 200, workers=256, batch=batch, num_images=images)[1])


def peak_megabytes(run: Callable[[], object]) -> float:
    """Return the most memory that ``run`` held at any time."""
    tracemalloc.start()
    run()
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return highest / 1e6


def report_index_cost(
    rounds: int, json: Path | None, train: int = IMAGENET_TRAIN, val: int = IMAGENET_VAL
) -> None:
    """Measure with so many made-up images and print a table of seconds and MB."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        for split, images in (("train", train), ("val", val)):
            _make_up(data, split, images)
        files = sum(index_path(data, split).stat().st_size for split in ("train", "val"))
        candidates = {
            "open both indexes": lambda: open_splits(data),
            "order of an epoch": lambda: epoch_order(train),
            "windows and flips of an epoch": lambda: epoch_windows(train),
            "a worker's share of a step": lambda: worker_step(train),
        }
        seconds = {
            name: statistics.median(values)
            for name, values in interleaved(candidates, rounds).items()
        }
        memory = {name: peak_megabytes(run) for name, run in candidates.items()}
    print(f"{machine()}; {train:,} and {val:,} made-up images, index files of {files / 1e6:.0f} MB")
    print(f"{'':30} {'s (median)':>12} {'peak MB':>8}")
    for name in candidates:
        print(f"{name:30} {seconds[name]:12.4f} {memory[name]:8.1f}")
    write_json(json, {"seconds": seconds, "peak_megabytes": memory, "file_megabytes": files / 1e6})


def _make_up(data: Path, split: str, images: int) -> None:
    """Write the index of images that do not exist, except for the two that opening checks."""
    classes = tuple(f"n{number:08d}" for number in range(IMAGENET_CLASSES))
    for name in classes:
        (data / split / name).mkdir(parents=True)
    labels = np.sort(np.arange(images, dtype=np.int32) % IMAGENET_CLASSES)
    names = [f"{classes[label]}/{classes[label]}_{i}.JPEG" for i, label in enumerate(labels)]
    side, size = np.full(images, 500, np.int32), np.full(images, 110_000, np.int64)
    index = Index(
        str(data / split),
        classes,
        np.array(names, dtype=bytes),
        labels,
        heights=side,
        widths=side,
        file_bytes=size,
    )
    save_index(index_path(data, split), index)
    for image in (0, images - 1):
        with open(index.path(image), "wb") as file:
            os.truncate(file.fileno(), int(size[image]))
