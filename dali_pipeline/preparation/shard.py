"""A shard of a packed data set: a plain tar in WebDataset's form.

Each image is CLASS/NAME.jpg, followed by CLASS/NAME.cls with its label as text. Tar, because any
tool reads it, DALI's ``readers.webdataset`` among them; and because it stores images as they are,
an index can hold the place of each one, so training still reads them in any order. The ``.idx``
beside a tar spares DALI's reader the walk through it.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dali_pipeline.dataset.colours import to_rgb
from dali_pipeline.dataset.index import Index
from hvd_utils.cli.errors import BadInput

QUALITY = 90
MEASURED = {"heights": np.int32, "widths": np.int32, "file_bytes": np.int64, "offset": np.int64}


class Encoding(NamedTuple):
    """How images are encoded anew: not at all, unless their longer side is above ``max_side``."""

    max_side: int | None
    quality: int

    @property
    def note(self) -> str:
        """The note of an index about it."""
        if self.max_side is None:
            return ""
        return (
            f"longer sides reduced to {self.max_side} pixels, JPEG quality {self.quality} "
            "(a departure from the paper)"
        )


@dataclass(frozen=True)
class Shard:
    """What goes into a shard: the images of ``index``, called ``keys`` there."""

    path: Path
    memory: Path
    index: Index
    keys: list[str]
    encoding: Encoding


def write_shard(shard: Shard) -> int:
    """Write a shard, unless it is there, whole and of the same images; return how many it has.

    Its columns in ``MEASURED`` are then in its ``memory``. It is written under a temporary name and
    renamed. Raises BadInput where an image cannot be read or differs from the index.
    """
    identity = _identity(shard)
    try:
        with np.load(shard.memory, allow_pickle=False) as known:
            if known["identity"] == identity and known["size"] == shard.path.stat().st_size:
                if not idx_path(shard.path).exists():
                    write_idx(shard.path)
                if all(len(known[name]) == len(shard.index) for name in MEASURED):
                    return len(shard.index)
    except Exception:  # nothing yet, or nothing that makes sense: write it
        pass
    shard.path.parent.mkdir(parents=True, exist_ok=True)
    shard.memory.parent.mkdir(parents=True, exist_ok=True)
    temporary = shard.path.with_name(f".{shard.path.name}.tmp")
    measured: dict[str, Any] = _write(temporary, shard)
    size = temporary.stat().st_size
    for old in (shard.memory, idx_path(shard.path)):  # of the shard that is replaced
        old.unlink(missing_ok=True)
    os.replace(temporary, shard.path)
    write_idx(shard.path)
    with shard.memory.open("wb") as file:
        np.savez(file, identity=identity, size=size, **measured)
    return len(shard.index)


def column_of_shards(name: str, memories: Iterable[tuple[Path, int]]) -> Iterator[np.ndarray]:
    """Yield a column of an index in parts, a shard's at a time, from what was remembered of each.

    ``memories`` are those files and the numbers of images.
    """
    for number, (memory, images) in enumerate(memories):
        if name == "shard":
            yield np.full(images, number)
            continue
        with np.load(memory, allow_pickle=False) as stored:
            values = stored[name]
        yield values


def idx_path(tar: Path) -> Path:
    """Return where DALI's index of a shard is."""
    return tar.with_suffix(".idx")


def write_idx(tar: Path) -> None:
    """Write DALI's index of a shard: the format v1.2 of ``wds2idx``, which comes with DALI.

    A line for each sample has extension, offset, length and name of its files. The reader takes
    blanks for ends, and the name for messages alone, so its blanks are written as _.
    """
    samples: dict[str, list[str]] = {}
    with tarfile.open(tar, "r:") as opened:
        for member in opened:
            key, _, extension = member.name.rpartition(".")
            name = re.sub(r"\s", "_", member.name)
            part = f"{extension} {member.offset_data} {member.size} {name}"
            samples.setdefault(key, []).append(part)
    lines = [f"v1.2 {len(samples)}", *map(" ".join, samples.values())]
    temporary = idx_path(tar).with_name(f".{idx_path(tar).name}.tmp")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
    os.replace(temporary, idx_path(tar))


def _identity(shard: Shard) -> str:
    """Return a digest of what a shard is made from."""
    digest = hashlib.sha256(repr((shard.keys, shard.encoding)).encode(errors="surrogateescape"))
    digest.update(shard.index.labels.tobytes())
    for image in range(len(shard.index)):
        stat = os.stat(shard.index.path(image))
        digest.update(f"{stat.st_size} {stat.st_mtime_ns},".encode())
    return digest.hexdigest()


def _write(path: Path, shard: Shard) -> dict[str, np.ndarray]:
    index, rows = shard.index, []
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for image, key in enumerate(shard.keys):
            data, height, width = index.read(image), index.heights[image], index.widths[image]
            if len(data) != index.file_bytes[image]:
                raise BadInput(f"{index.path(image)} changed while it was packed: start again")
            suffix = os.path.splitext(index.path(image))[1].lower().replace("jpeg", "jpg")
            if shard.encoding.max_side and max(height, width) > shard.encoding.max_side:
                data, height, width = _encode(data, shard.encoding)
                suffix = ".jpg"
            rows.append((height, width, len(data), _add(tar, key + suffix, data)))
            _add(tar, f"{key}.cls", str(index.labels[image]).encode())
    columns = zip(*rows, strict=True)
    return {
        name: np.array(column, kind)
        for (name, kind), column in zip(MEASURED.items(), columns, strict=True)
    }


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Append a file; return where in the tar its data begins."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, BytesIO(data))
    blocks = math.ceil(len(data) / tarfile.BLOCKSIZE)  # the data, padded, is what came last
    return tar.offset - blocks * tarfile.BLOCKSIZE


def _encode(data: bytes, encoding: Encoding) -> tuple[bytes, int, int]:
    """Return an image reduced to ``max_side`` pixels as JPEG, its height and its width."""
    with Image.open(BytesIO(data)) as image:
        pixels = image if image.mode == "L" else to_rgb(image)
        scale = encoding.max_side / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        reduced = pixels.resize((width, height), Image.Resampling.LANCZOS)
    file = BytesIO()
    reduced.save(file, "JPEG", quality=encoding.quality)
    return file.getvalue(), height, width
