"""Index tars that others wrote (WebDataset's), where they are: nothing is copied or written anew.

``DIR/train/*.tar`` and ``DIR/val/*.tar`` get ``DIR/train.index.npz`` and ``DIR/val.index.npz``.
Tars at URLs get both in a folder of their own, which training opens and reads the tars from there.
Each tar's findings go to a file; the index is then written from those, part by part, so no list of
all images is ever in memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dali_pipeline.dataset.index_file import (
    SPLITS,
    Columns,
    index_path,
    load_index,
    open_splits,
    write_index,
)
from dali_pipeline.preparation.parallel import parallel_map
from dali_pipeline.preparation.shard import column_of_shards
from dali_pipeline.preparation.tars.listing import Tars, tars_of_folder, tars_of_urls
from dali_pipeline.preparation.tars.tar_samples import Found, TarFile, index_tar
from dali_pipeline.storage.address import is_remote
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.progress_bar import tqdm
from hvd_utils.faults.folder_lock import locked_folder

MEMORY = ".prepare/shards"  # folder that remembers what was found, a file for each tar
CLASSES = "classes.txt"  # in DIR: line i names the class of label i - 1


def index_tars(options: argparse.Namespace) -> None:
    """Write the indexes of both splits; tars that were looked into before are not again.

    Raises BadInput where there are no tars, or they are not as ``tar_samples`` expects.
    """
    remote = is_remote(options.from_shards[0])
    data = Path(options.output if remote else options.from_shards[0]).expanduser().absolute()
    if remote:
        tars = tars_of_urls(options.from_shards)
    else:
        tars = [tars_of_folder(data / split) for split in SPLITS]
    with locked_folder((data / MEMORY).parent, "folder"):
        _index(data, tars, options)
    if remote:
        for split in SPLITS:
            load_index(index_path(data, split), data)
    else:
        open_splits(data)
    print(f"indexed: train with --data {data}")


def _index(data: Path, tars: Sequence[Tars], options: argparse.Namespace) -> None:
    how = options.label_key, options.drop_bad
    tasks = [
        TarFile(own.path(name), own.root, _memory(data, split, name), *how)
        for split, own in zip(SPLITS, tars, strict=True)
        for name in own.names
    ]
    found = []
    with tqdm(total=len(tasks), unit="tar", desc="indexing", disable=None) as bar:
        for one in parallel_map(index_tar, tasks, options.processes):
            found.append(one)
            bar.update()
    count = len(tars[0].names)
    splits = found[:count], found[count:]
    labels = [frozenset[bytes]().union(*(one.labels for one in split)) for split in splits]
    for own, known in zip(tars, labels, strict=True):
        if not known:
            raise BadInput(f"no tar in {own.given} has an image: see WebDataset's conventions")
    extra = sorted(labels[1] - labels[0])
    if extra:
        raise BadInput(
            f"label {extra[0].decode()} is in {tars[1].given} but not in {tars[0].given}: "
            "every class that is validated has to be trained"
        )
    names = _class_names(data / CLASSES, labels[0])
    for split, own, part, known in zip(SPLITS, tars, splits, labels, strict=True):
        _write(index_path(data, split), own, part, {label: names[label] for label in known})
        dropped = sum(one.dropped for one in part)
        without = f"; {dropped:,} samples without a readable image left out" if dropped else ""
        images = sum(one.images for one in part)
        print(
            f"{split}: {images:,} images in {len(own.names):,} tars, "
            f"{len(known):,} classes{without}"
        )


def _memory(data: Path, split: str, name: str) -> Path:
    return (data / MEMORY / split / name).with_suffix(".npz")


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
    path: Path, tars: Tars, found: Sequence[Found], classes: dict[bytes, tuple[int, str]]
) -> None:
    """Write the index of a split; ``classes`` are its labels with their order and names."""
    known = np.array(sorted(classes))
    by_place = sorted(classes, key=lambda label: classes[label][0])
    place = {label: number for number, label in enumerate(by_place)}
    label_of = np.array([place[label] for label in known.tolist()])

    memories = [(one.memory, one.images) for one in found]

    def parts(column: str) -> Iterator[np.ndarray]:
        for values in column_of_shards(column, memories):
            yield label_of[np.searchsorted(known, values)] if column == "labels" else values

    width = max(one.width for one in found)
    columns = Columns(sum(one.images for one in found), np.dtype(f"S{width}"), parts)
    url = tars.root if is_remote(tars.root) else ""
    names = [classes[label][1] for label in by_place]
    write_index(path, columns, names, tars.names, url=url)
