"""What knowing ImageNet costs a run: opening its index, and an epoch's order and windows."""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import interleaved, machine, write_json
from benchmarks.sampling import epoch_order, epoch_windows, peak_megabytes
from dali_pipeline.dataset import IMAGENET_CLASSES, IMAGENET_TRAIN, IMAGENET_VAL
from dali_pipeline.index import Index
from dali_pipeline.index_file import index_path, open_splits, save_index


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
        }
        seconds = {
            name: statistics.median(values)
            for name, values in interleaved(candidates, rounds).items()
        }
        memory = {name: peak_megabytes(run) for name, run in candidates.items()}
    print(f"{machine()}; {train:,} and {val:,} made-up images, index files of {files / 1e6:.0f} MB")
    print(f"{'':30} {'s (median)':>12} {'peak MB':>8}")
    for name in candidates:
        print(f"{name:30} {seconds[name]:12.3f} {memory[name]:8.1f}")
    write_json(json, {"seconds": seconds, "peak_megabytes": memory, "file_megabytes": files / 1e6})


def _make_up(data: Path, split: str, images: int) -> None:
    """Write the index of images that are not there, but for the two that opening looks at."""
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
