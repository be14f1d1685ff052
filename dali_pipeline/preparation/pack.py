"""Pack a verified data set into few large files, for storage that is slow with small ones.

``FOLDER/train/`` and ``FOLDER/val/`` hold the shards, their indexes lie beside; training reads the
folder as any other.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from dali_pipeline.dataset.index import Index
from dali_pipeline.dataset.index_file import SPLITS, index_path, save_index
from dali_pipeline.preparation.parallel import parallel_map
from dali_pipeline.preparation.shard import MEASURED, Encoding, Shard, idx_path, write_shard
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.progress_bar import tqdm

SHARD_BYTES = 1_000_000_000
MEMORY = ".prepare"  # folder that remembers what was packed, a file for each shard


def check_folder(folder: Path, data: Path) -> None:
    """Raise BadInput if shards in ``folder`` would mingle with the class folders of ``data``."""
    folders = [path for split in SPLITS for path in (folder / split).glob("*") if path.is_dir()]
    if folders or folder.resolve() == data.resolve():
        raise BadInput(f"{folder} has class folders: give --pack a folder of its own")


def pack(
    splits: Sequence[Index], folder: Path, encoding: Encoding, shard_bytes: int, processes: int
) -> None:
    """Write ``splits`` as shards with their indexes; whole shards of an earlier run stay.

    ``shard_bytes`` is the size of a shard's images before they are encoded anew. Raises BadInput
    where two images would have the same name in a shard.
    """
    shards = [_shards(index, folder, encoding, shard_bytes) for index in splits]
    for split in SPLITS:  # an old index must not be found with new shards
        index_path(folder, split).unlink(missing_ok=True)
    measured = []
    with tqdm(total=sum(map(len, splits)), unit="image", desc="packing", disable=None) as bar:
        for found in parallel_map(write_shard, [*chain(*shards)], processes):
            measured.append(found)
            bar.update(len(found["offset"]))
    for index, own in zip(splits, shards, strict=True):
        mine, measured = measured[: len(own)], measured[len(own) :]
        columns: dict[str, Any] = {
            name: np.concatenate([found[name] for found in mine]) for name in MEASURED
        }
        split = os.path.basename(index.root)
        packed = replace(
            index,
            root=str(folder / split),
            shards=tuple(shard.path.name for shard in own),
            shard=np.repeat(np.arange(len(own), dtype=np.int32), [len(s.index) for s in own]),
            note="; ".join(filter(None, (index.note, encoding.note))),
            **columns,
        )
        _remove_others(own)
        save_index(index_path(folder, split), packed)


def _shards(index: Index, folder: Path, encoding: Encoding, shard_bytes: int) -> list[Shard]:
    """Cut a split, in its order, into shards."""
    keys = sample_keys(index)
    split = os.path.basename(index.root)
    begins = np.cumsum(index.file_bytes) - index.file_bytes
    _, firsts = np.unique(begins // shard_bytes, return_index=True)
    shards = []
    for number, images in enumerate(np.split(np.arange(len(index)), firsts[1:])):
        part = slice(images[0], images[-1] + 1)
        columns = ("names", "labels", "heights", "widths", "file_bytes")
        shards.append(
            Shard(
                folder / split / f"{number:06d}.tar",
                folder / MEMORY / split / f"{number:06d}.npz",
                replace(index, **{name: getattr(index, name)[part] for name in columns}),
                keys[part],
                encoding,
            )
        )
    return shards


def sample_keys(index: Index) -> list[str]:
    """Return what each image is called in its shard: CLASS/NAME without extension.

    WebDataset takes everything after a name's first dot for the extension, so there is none left.
    Raises BadInput where two images would have the same name.
    """
    keys = []
    for name in index.names.tolist():
        folder, _, file = os.fsdecode(name).rpartition("/")
        keys.append(f"{folder}/{os.path.splitext(file)[0].replace('.', '_')}")
    if len(set(keys)) < len(keys):
        twice = Counter(keys).most_common(1)[0][0]
        raise BadInput(f"two images of {index.root} would be packed as {twice}: rename one")
    return keys


def _remove_others(shards: Sequence[Shard]) -> None:
    """Remove shards of an earlier packing that cut the images otherwise."""
    current = {shard.memory for shard in shards}
    for memory in shards[0].memory.parent.glob("*.npz"):
        if memory not in current:
            tar = shards[0].path.parent / f"{memory.stem}.tar"
            tar.unlink(missing_ok=True)
            idx_path(tar).unlink(missing_ok=True)
            memory.unlink()
