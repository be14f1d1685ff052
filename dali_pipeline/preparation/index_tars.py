"""Index tars that others wrote (WebDataset's), where they are: nothing is copied or written anew.

``DIR/train/*.tar`` and ``DIR/val/*.tar`` get ``DIR/train.index.npz`` and ``DIR/val.index.npz``.
Each tar's findings go to a file; the index is then written from those, part by part, so no list of
all images is ever in memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dali_pipeline.dataset.index_file import SPLITS, Columns, index_path, open_splits, write_index
from dali_pipeline.preparation.parallel import parallel_map
from dali_pipeline.preparation.tar_samples import Found, TarFile, index_tar
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.progress_bar import tqdm

MEMORY = ".prepare/shards"  # folder that remembers what was found, a file for each tar
CLASSES = "classes.txt"  # in DIR: line i names the class of label i - 1


def index_tars(data: Path, options: argparse.Namespace) -> None:
    """Write the indexes of both splits; tars that were looked into before are not again.

    Raises BadInput where there are no tars, or they are not as ``tar_samples`` expects.
    """
    tars = [_tars(data / split) for split in SPLITS]
    tasks = [
        TarFile(path, _memory(data, path), options.label_key, options.drop_bad)
        for paths in tars
        for path in paths
    ]
    found = []
    with tqdm(total=len(tasks), unit="tar", desc="indexing", disable=None) as bar:
        for one in parallel_map(index_tar, tasks, options.processes):
            found.append(one)
            bar.update()
    splits = found[: len(tars[0])], found[len(tars[0]) :]
    labels = [frozenset[bytes]().union(*(one.labels for one in split)) for split in splits]
    for split, known in zip(SPLITS, labels, strict=True):
        if not known:
            raise BadInput(f"no tar in {data / split} has an image: see WebDataset's conventions")
    extra = sorted(labels[1] - labels[0])
    if extra:
        raise BadInput(
            f"label {extra[0].decode()} is in {data / 'val'} but not in {data / 'train'}: every "
            "class that is validated has to be trained"
        )
    names = _class_names(data / CLASSES, labels[0])
    for split, paths, part, known in zip(SPLITS, tars, splits, labels, strict=True):
        _write(data, split, paths, part, {label: names[label] for label in known})
        dropped = sum(one.dropped for one in part)
        without = f"; {dropped:,} samples without a readable image left out" if dropped else ""
        images = sum(one.images for one in part)
        print(f"{split}: {images:,} images in {len(paths):,} tars, {len(known):,} classes{without}")
    open_splits(data)
    print(f"indexed: train with --data {data}")


def _tars(folder: Path) -> list[Path]:
    tars = sorted(folder.rglob("*.tar"))
    if not tars and any(folder.rglob("*.parquet")):
        raise BadInput(
            f"{folder} has Parquet files, whose images cannot be read in place: write them as tars "
            "of WebDataset's form (webdataset.TarWriter), with .jpg and .cls"
        )
    if not tars:
        raise BadInput(
            f"no tars in {folder}: expected {folder}/*.tar, not compressed, beside those of the "
            "other split"
        )
    return tars


def _memory(data: Path, tar: Path) -> Path:
    return data / MEMORY / tar.relative_to(data).with_suffix(".npz")


def _class_names(path: Path, labels: frozenset[bytes]) -> dict[bytes, tuple[int, str]]:
    """Return each label's place in the order of classes, and its class's name.

    Labels that are all numbers are in the order of numbers, else in the order of names.
    """
    if not all(label.isdigit() for label in labels):
        return {label: (place, label.decode()) for place, label in enumerate(sorted(labels))}
    numbers = sorted(map(int, labels))
    given = None
    if path.exists():  # of any encoding: the index keeps the bytes
        given = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    if given is not None and (numbers[-1] >= len(given) or len(set(given)) < len(given)):
        raise BadInput(
            f"{path} has {len(given):,} lines: it has to name each of the classes 0 to "
            f"{numbers[-1]} on a line of its own, no two alike"
        )
    return {
        str(number).encode(): (place, given[number] if given else str(number))
        for place, number in enumerate(numbers)
    }


def _write(
    data: Path,
    split: str,
    tars: Sequence[Path],
    found: Sequence[Found],
    classes: dict[bytes, tuple[int, str]],
) -> None:
    """Write the index of a split; ``classes`` are its labels with their order and names."""
    known = np.array(sorted(classes))
    by_place = sorted(classes, key=lambda label: classes[label][0])
    place = {label: number for number, label in enumerate(by_place)}
    label_of = np.array([place[label] for label in known.tolist()])

    def parts(column: str) -> Iterator[np.ndarray]:
        for number, one in enumerate(found):
            if column == "shard":
                yield np.full(one.images, number)
                continue
            with np.load(one.memory, allow_pickle=False) as stored:
                values = stored[column]
            yield label_of[np.searchsorted(known, values)] if column == "labels" else values

    width = max(one.width for one in found)
    columns = Columns(sum(one.images for one in found), np.dtype(f"S{width}"), parts)
    shards = [str(tar.relative_to(data / split)) for tar in tars]
    names = [classes[label][1] for label in by_place]
    write_index(index_path(data, split), columns, names, shards)
