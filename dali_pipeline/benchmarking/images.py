"""The images of the benchmark: some of a data set, or made-up ones; all in the page cache."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from dali_pipeline.benchmarking.jpegs import VERSION, make_jpegs
from dali_pipeline.dataset.index import Index
from dali_pipeline.dataset.index_file import open_splits
from hvd_utils.cli.checkout import cache_folder
from hvd_utils.cli.ranks import Processes

COLUMNS = ("names", "labels", "heights", "widths", "file_bytes", "shard", "offset")


def open_images(data: Path | None, images: int, world: Processes) -> tuple[Index, Index]:
    """Return ``images`` training images and a few validation images; collective.

    They come from the folder ``data``, evenly, or are made, by one process of each node.
    """
    folder = data or cache_folder() / f"jpegs{VERSION}-{images}"
    if data is None and world.local_rank == 0:
        make_jpegs(folder, images, world.cores * world.local_size)
    world.gather(None)  # all wait until they are there
    train, val = open_splits(folder)
    return _part(train, images), _part(val, 1)


def scratch_folder(train: Index) -> Path:
    """Return the folder for copies of just these images in other formats."""
    digest = hashlib.sha256(train.root.encode(errors="surrogateescape"))
    digest.update(train.names.tobytes())
    digest.update(train.file_bytes.tobytes())
    return cache_folder() / f"copies-{digest.hexdigest()[:12]}"


def _part(index: Index, count: int) -> Index:
    """Return ``count`` images at even distances, or all if there are fewer, each of them read once.

    Their sizes are known then, as those of a prepared index, and their files are in memory.
    """
    ids = np.unique(np.linspace(0, len(index) - 1, min(count, len(index))).astype(np.int64))
    heights, widths = index.sizes(ids)
    columns = {name: getattr(index, name) for name in COLUMNS}
    part = {name: column[ids] for name, column in columns.items() if column is not None}
    part |= {"heights": heights, "widths": widths}
    part["file_bytes"] = np.array([len(index.read(image)) for image in ids], np.int64)
    return replace(index, **part, _sizes={})
