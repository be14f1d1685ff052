"""Open the data set that ``--data`` names: rank 0 reads the index, all ranks receive it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from dali_pipeline.dataset.digits import ensure_digits
from dali_pipeline.dataset.index import Index, synthetic_index
from dali_pipeline.dataset.index_file import open_splits, url_of_shards
from dali_pipeline.dataset.open_remote import open_remote
from dali_pipeline.dataset.scan import check_splits
from dali_pipeline.storage.address import check_address, is_remote
from hvd_utils.cli.checkout import ROOT, cache_folder, is_checkout
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import Processes
from hvd_utils.config.settings import DIGITS, Settings

MOSTLY = 0.5  # of neighbours of one class: images were packed by class
LOOKED_AT = 10_000  # of them

EMBEDDED = (ROOT / "data" if is_checkout() else cache_folder()) / DIGITS
IMAGENET_TRAIN, IMAGENET_VAL, IMAGENET_CLASSES = 1_281_167, 50_000, 1000


def check_data(settings: Settings) -> None:
    """Raise BadInput where what --data names can be seen at once to be missing; cheap."""
    url = "" if settings.loader == "synthetic" else url_of_data(settings)
    if settings.cache and not url:
        raise BadInput(
            f"--cache {settings.cache} has no effect: it is for --data s3://... or https://...; "
            "leave it out"
        )
    if url:
        check_address(url)
        return
    if settings.loader == "synthetic" or settings.data == DIGITS:
        return
    if settings.data is None:
        raise BadInput(
            f"recipe {settings.recipe} needs images: set --data DIR or IMAGENET_DIR; "
            "--recipe demo brings its own, --loader synthetic needs none"
        )
    check_splits(_folder(settings))


def url_of_data(settings: Settings) -> str:
    """Return where images are read from, if not from a folder: --data, or what its index names."""
    if settings.data in (None, DIGITS):
        return ""
    return settings.data if is_remote(settings.data) else url_of_shards(_folder(settings))


def _folder(settings: Settings) -> Path:
    if settings.data == DIGITS:
        return EMBEDDED
    try:
        return Path(settings.data).expanduser().absolute()
    except RuntimeError as error:  # ~nobody: no such user
        raise BadInput(
            f"data folder {settings.data} does not exist ({error}): set --data or IMAGENET_DIR"
        ) from error


def open_dataset(settings: Settings, world: Processes) -> tuple[Index, Index]:
    """Return the training and validation index that ``settings`` name; collective.

    Rank 0 reads the prepared index, or else walks the folders, so that a parallel file system is
    walked once; every other process checks that it sees them. Raises BadInput where the data is
    missing or not as expected.
    """
    if settings.loader == "synthetic":
        held_out = max(1, round(settings.synthetic_images * IMAGENET_VAL / IMAGENET_TRAIN))
        return (
            synthetic_index(settings.synthetic_images, IMAGENET_CLASSES),
            synthetic_index(held_out, IMAGENET_CLASSES),
        )
    if world.broadcast(url_of_data(settings) if world.is_root else None):  # others may see no index
        return open_remote(settings, world)
    data = _folder(settings)
    if settings.data == DIGITS:
        if world.local_rank == 0:  # on each node, in case the folder is not shared
            ensure_digits(data)
        world.gather(None)  # all wait until it is there
    splits = world.broadcast(open_splits(data) if world.is_root else None)
    for split in splits:
        if not os.path.isdir(split.root):
            raise BadInput(f"data folder {split.root} is on rank 0's host but not on {world.host}")
    return splits


def describe(settings: Settings, train: Index, val: Index) -> str:
    """Return the line that describes what the run reads."""
    counts = f"{len(train):,} training and {len(val):,} validation images, "
    counts += f"{len(train.classes)} classes"
    if val.classes != train.classes:
        counts += f", validated by a softmax over {len(val.classes)} of them"
    if settings.loader == "synthetic":
        return f"data: synthetic (no files): {counts}"
    if settings.data == DIGITS:
        return (
            f"data: embedded handwritten digits in {EMBEDDED} "
            f"(set --data or IMAGENET_DIR for your own): {counts}"
        )
    prepared = " (prepared index)" if train.prepared else ""
    for name, index in (("training", train), ("validation", val)):
        if index.note:
            counts += f"; {name} images: {index.note}"
    if settings.shuffle == "window" and (alike := neighbours_alike(train)) > MOSTLY:
        counts += (
            f"; warning: {alike:.0%} of neighbours in the shards are of one class, and so are "
            "the images of a window: shuffle them before they are packed, or train by --shuffle "
            "global"
        )
    return f"data: {settings.data}{prepared}: {counts}"


def neighbours_alike(index: Index) -> float:
    """Return the share of images, of some, whose neighbour in the index has the same label."""
    if len(index) < 2:
        return 0.0
    places = np.linspace(1, len(index) - 1, LOOKED_AT).astype(np.int64)
    return float(np.mean(index.labels[places] == index.labels[places - 1]))
