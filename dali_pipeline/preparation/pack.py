"""Pack a verified data set into few large files, for storage that is slow with small ones.

``FOLDER/train/`` and ``FOLDER/val/`` hold the shards, their indexes lie beside; training reads the
folder as any other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dali_pipeline.dataset.index import Index
from dali_pipeline.dataset.index_file import SPLITS, Columns, index_path, write_index
from dali_pipeline.dataset.mapped import pieces
from dali_pipeline.preparation.parallel import parallel_map
from dali_pipeline.preparation.shard import (
    Encoding,
    Shard,
    column_of_shards,
    idx_path,
    write_shard,
)
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.progress_bar import tqdm
from hvd_utils.faults.folder_lock import locked_folder

SHARD_BYTES = 1_000_000_000
MEMORY = ".prepare"  # folder that remembers what was packed, a file for each shard


def check_folder(folder: Path, data: Path) -> None:
    """Raise BadInput if shards in ``folder`` would mingle with the class folders of ``data``."""
    folders = [path for split in SPLITS for path in (folder / split).glob("*") if path.is_dir()]
    if folders or folder.resolve() == data.resolve():
        raise BadInput(f"{folder} has class folders: give --pack a folder of its own")


class _Cut(NamedTuple):
    """A shard, the file that remembers it, and its images: from ``first`` to before ``end``."""

    path: Path
    memory: Path
    first: int
    end: int


def pack(
    splits: Sequence[Index], folder: Path, encoding: Encoding, shard_bytes: int, processes: int
) -> None:
    """Write ``splits`` as shards with their indexes; whole shards of an earlier run stay.

    ``shard_bytes`` is the size of a shard's images before they are encoded anew. What is in memory
    grows with the number of shards alone. Raises BadInput where two images would have the same
    name in a shard, or another process packs into ``folder``.
    """
    for index in splits:
        _check_keys(index)
    with locked_folder(folder / MEMORY, "--pack"):
        _pack(splits, folder, encoding, shard_bytes, processes)


def _pack(
    splits: Sequence[Index], folder: Path, encoding: Encoding, shard_bytes: int, processes: int
) -> None:
    cuts = [_cuts(index, folder, shard_bytes) for index in splits]
    for split in SPLITS:  # an old index must not be found with new shards
        index_path(folder, split).unlink(missing_ok=True)
    shards = (
        _shard(index, cut, encoding) for index, own in zip(splits, cuts, strict=True) for cut in own
    )
    with tqdm(total=sum(map(len, splits)), unit="image", desc="packing", disable=None) as bar:
        for images in parallel_map(write_shard, shards, processes):
            bar.update(images)
    for index, own in zip(splits, cuts, strict=True):
        _remove_others(own)
        _write_index(index, own, folder, encoding)


def _write_index(index: Index, cuts: Sequence[_Cut], folder: Path, encoding: Encoding) -> None:
    """Write the index of packed images, from their own and what was measured of each shard."""
    memories = [(cut.memory, cut.end - cut.first) for cut in cuts]

    def parts(name: str) -> Iterable[np.ndarray]:
        if name in ("names", "labels"):
            return pieces(getattr(index, name))
        return column_of_shards(name, memories)

    columns = Columns(len(index), index.names.dtype, parts)
    path = index_path(folder, os.path.basename(index.root))
    note = "; ".join(filter(None, (index.note, encoding.note)))
    write_index(path, columns, index.classes, [cut.path.name for cut in cuts], note)


def _cuts(index: Index, folder: Path, shard_bytes: int) -> list[_Cut]:
    """Cut a split, in its order, into shards."""
    split = os.path.basename(index.root)
    firsts: list[int] = []
    start, end, number = 0, 0, -1
    for part in pieces(index.file_bytes):
        ends = end + np.cumsum(part)
        numbers = (ends - part) // shard_bytes  # of which a large image skips some
        firsts += (start + np.flatnonzero(np.diff(numbers, prepend=number))).tolist()
        start, end, number = start + len(part), ends[-1], numbers[-1]
    return [
        _Cut(
            folder / split / f"{place:06d}.tar",
            folder / MEMORY / split / f"{place:06d}.npz",
            first,
            end,
        )
        for place, (first, end) in enumerate(pairwise([*firsts, len(index)]))
    ]


def _shard(index: Index, cut: _Cut, encoding: Encoding) -> Shard:
    columns = ("names", "labels", "heights", "widths", "file_bytes")
    part = {name: getattr(index, name)[cut.first : cut.end] for name in columns}
    keys = [*map(sample_key, part["names"].tolist())]
    return Shard(cut.path, cut.memory, replace(index, **part), keys, encoding)


def sample_key(name: bytes) -> str:
    """Return what an image is called in its shard: CLASS/NAME without extension.

    WebDataset takes everything after a name's first dot for the extension, so there is none left.
    """
    folder, _, file = os.fsdecode(name).rpartition("/")
    return f"{folder}/{os.path.splitext(file)[0].replace('.', '_')}"


def _check_keys(index: Index) -> None:
    """Raise BadInput where two images would have the same name; those of a folder are together."""
    keys = (sample_key(name) for part in pieces(index.names) for name in part.tolist())
    for _, group in groupby(keys, lambda key: key.rpartition("/")[0]):
        seen: set[str] = set()
        for key in group:
            if key in seen:
                raise BadInput(f"two images of {index.root} would be packed as {key}: rename one")
            seen.add(key)


def _remove_others(shards: Sequence[_Cut]) -> None:
    """Remove shards of an earlier packing that cut the images otherwise."""
    current = {shard.memory for shard in shards}
    for memory in shards[0].memory.parent.glob("*.npz"):
        if memory not in current:
            tar = shards[0].path.parent / f"{memory.stem}.tar"
            tar.unlink(missing_ok=True)
            idx_path(tar).unlink(missing_ok=True)
            memory.unlink()
