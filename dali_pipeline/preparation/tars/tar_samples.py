"""The samples of a tar that others wrote by WebDataset's conventions, and where their images lie.

A sample is a run of files of one key: the name up to the first dot of its last part; the rest is
the extension (github.com/webdataset/webdataset, "The WebDataset Format"). The image is the file
with an image's extension. The label is what .cls holds, or a field of the object in .json.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dali_pipeline.dataset.scan import EXTENSIONS
from dali_pipeline.preparation.shard import MEASURED
from dali_pipeline.preparation.tars.opening import open_tar, state_of
from hvd_utils.cli.errors import BadInput

NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")
READ = EXTENSIONS | {".cls", ".json"}
BUFFER = 4096  # bytes of an image read at once
TEXTS = {"names": bytes, "labels": bytes}  # beside what is measured


class TarFile(NamedTuple):
    """A tar to index, the file that remembers what was found, and how it is to be read."""

    path: str  # or its URL
    root: str  # its beginning, which for a URL is encoded; the rest is the name itself
    memory: Path
    label_key: str
    drop_bad: bool


class Found(NamedTuple):
    """What is in a tar; its columns are in ``memory``."""

    memory: Path
    images: int
    width: int  # bytes of the longest name
    labels: frozenset[bytes]
    dropped: int


def index_tar(tar: TarFile) -> Found:
    """Find the images of a tar, unless that is remembered of the same file.

    Raises BadInput where it is no plain tar or cut off, a sample has no label, two images or one
    that cannot be read, or the tar changes meanwhile.
    """
    size, version = state = state_of(tar.path, tar.root)
    identity = f"{size} {version} {tar.label_key} {tar.drop_bad}"
    try:
        with np.load(tar.memory, allow_pickle=False) as known:
            if str(known["identity"]) == identity:
                return _found(tar.memory, known)
    except Exception:  # nothing yet, or nothing that makes sense: find it
        pass
    rows, dropped = [], 0
    try:
        with (
            open_tar(tar.path, tar.root, size) as file,
            tarfile.open(fileobj=file, mode="r:") as opened,
        ):
            for key, sample in _samples(opened, tar):
                row = _row(opened, tar, key, sample)
                if row is None:
                    dropped += 1
                else:
                    rows.append(row)
            _require_end(opened.offset, file)
    except tarfile.TarError as error:
        raise BadInput(
            f"{tar.path} is cut off or no plain tar ({error}): copy it again; of a compressed one, "
            "images cannot be read in place"
        ) from error
    if state_of(tar.path, tar.root) != state:
        raise BadInput(f"{tar.path} changed while it was read: start again")
    columns = list(zip(*rows, strict=True)) or [()] * len(TEXTS | MEASURED)
    arrays: dict[str, Any] = {
        name: np.array(column, kind)
        for (name, kind), column in zip((TEXTS | MEASURED).items(), columns, strict=True)
    }
    tar.memory.parent.mkdir(parents=True, exist_ok=True)
    temporary = tar.memory.with_name(f".{tar.memory.name}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, identity=identity, dropped=dropped, **arrays)
    os.replace(temporary, tar.memory)
    return _found(tar.memory, {**arrays, "dropped": dropped})


def _require_end(offset: int, file: Any) -> None:
    """Raise ReadError unless the block of zeros follows that ends a tar: tarfile does not ask."""
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it has no end")


def _found(memory: Path, known: Any) -> Found:
    names, labels = known["names"], frozenset(known["labels"].tolist())
    return Found(memory, len(names), names.dtype.itemsize, labels, int(known["dropped"]))


def _samples(tar: tarfile.TarFile, of: TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Yield each sample's key and its files by extension, in lower case."""
    named = ((NAME.fullmatch(m.name), m) for m in tar if not m.isdir())
    files = ((match[1], match[2].lower(), member) for match, member in named if match)
    for key, group in groupby(files, lambda file: file[0]):
        sample: dict[str, tarfile.TarInfo] = {}
        for _, extension, member in group:
            if not member.isreg() and f".{extension}" not in READ:
                continue
            if not member.isreg():
                raise BadInput(
                    f"{of.path}: {member.name} is a link, whose bytes are elsewhere: write "
                    "the tar anew, by GNU tar with --dereference --hard-dereference"
                )
            if extension in sample:
                raise BadInput(f"{of.path} has {member.name} twice: rename one")
            sample[extension] = member
        yield key, sample
        tar.members = []  # which tarfile would keep for ever


def _row(tar: tarfile.TarFile, of: TarFile, key: str, sample: dict) -> tuple | None:
    """Return name, label, height, width, length and offset of a sample's image.

    None where there is no image, or none that can be read and such are left out.
    """
    images = [extension for extension in sample if f".{extension}" in EXTENSIONS]
    if not images:
        return None
    if len(images) > 1:
        raise BadInput(f"{of.path}: sample {key} has two images, .{' and .'.join(images)}")
    member = sample[images[0]]
    label = _label(tar, of, key, sample)
    try:
        raw = tar.extractfile(member).detach()  # whose buffer Python 3.14 made 128 KB
        with Image.open(io.BufferedReader(raw, BUFFER)) as header:  # reads no more
            width, height = header.size
    except (OSError, SyntaxError, ValueError) as error:
        if of.drop_bad:
            return None
        raise BadInput(
            f"{of.path}: {member.name} is not an image ({error}): mend it, or leave out what "
            "cannot be read with --drop-bad"
        ) from error
    return os.fsencode(member.name), label, height, width, member.size, member.offset_data


def _label(tar: tarfile.TarFile, of: TarFile, key: str, sample: dict) -> bytes:
    """Return a sample's label as text, a number without zeros before it."""
    value: Any = None
    try:
        if "cls" in sample:
            value = tar.extractfile(sample["cls"]).read().decode().strip()
        elif "json" in sample:
            value = json.loads(tar.extractfile(sample["json"]).read())[of.label_key]
    except (ValueError, KeyError, TypeError, IndexError):
        pass  # told below
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise BadInput(
            f"{of.path}: sample {key} has no label: a number or a name is expected in .cls, or in "
            f".json as {of.label_key} (--label-key)"
        )
    text = str(value)
    return (str(int(text)) if text.isascii() and text.isdigit() else text).encode()
