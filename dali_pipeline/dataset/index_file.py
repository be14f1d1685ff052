"""The prepared index: one ``.npz`` file a split, so that a run need not walk the folders.

It has a column for each property of an image, all of fixed width. They are mapped, not read:
opening takes the same time for any number of images, and the processes of a node share them.
``DATA/train.index.npz`` describes ``DATA/train/``, and likewise ``val``; ``prepare`` writes both.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dali_pipeline.dataset.index import AGAIN, Digest, Index
from dali_pipeline.dataset.mapped import (
    CHECKED_BYTES,
    ArrayWriter,
    MappedFile,
    map_arrays,
    pieces,
    read_checksums,
)
from dali_pipeline.dataset.scan import check_classes, check_splits, scan_splits
from hvd_utils.cli.errors import BadInput

FORMAT = 1  # raised whenever the meaning of the file changes
SPLITS = ("train", "val")

# Of every prepared index, and of a packed one besides.
COLUMNS = {"labels": np.int32, "heights": np.int32, "widths": np.int32, "file_bytes": np.int64}
PACKED_COLUMNS = {"shard": np.int32, "offset": np.int64}
# Of a file that may be whole; others, as EISDIR, are of what is no index.
REFUSALS = (
    *(errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT),
    *(errno.EMFILE, errno.ENFILE),
)


def index_path(data: Path, split: str) -> Path:
    """Return where the prepared index of a split of ``data`` is."""
    return data / f"{split}.index.npz"


class Columns(NamedTuple):
    """The columns of an index that is written; each function returns a column's parts, in order."""

    length: int
    names_dtype: np.dtype
    parts: Callable[[str], Iterable[np.ndarray]]


def save_index(path: Path, index: Index) -> None:
    """Write a prepared index; under a temporary name and renamed, so that it is whole or absent."""
    columns = Columns(len(index), index.names.dtype, lambda name: pieces(getattr(index, name)))
    write_index(path, columns, index.classes, index.shards, index.note)


def write_index(
    path: Path,
    columns: Columns,
    classes: Sequence[str],
    shards: Sequence[str],
    note: str = "",
    url: str = "",
) -> None:
    """Write an index part by part; under a temporary name and renamed: it is whole or absent.

    The shards lie below ``url``, or else in the split's folder beside the index.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    digest = Digest(classes)
    with ArrayWriter(temporary) as writer:
        kinds = _kinds(shards)
        for part in writer.column(
            "names", columns.names_dtype, columns.length, columns.parts("names")
        ):
            digest.add_names(part)
        for name, kind in kinds.items():
            parts = columns.parts(name)
            for part in writer.column(name, np.dtype(kind), columns.length, parts):
                if name == "labels":
                    digest.add_labels(part)
        writer.array("format", FORMAT)
        writer.array("classes", _as_bytes(classes))
        writer.array("shards", _as_bytes(shards))
        writer.array("note", note)
        writer.array("digest", digest.end(note))
        if url:
            writer.array("url", url)
    os.replace(temporary, path)


def _kinds(shards: Sequence[str]) -> dict[str, Any]:
    return COLUMNS | (PACKED_COLUMNS if len(shards) else {})


def load_index(path: Path, root: Path) -> Index:
    """Open the index of the split in ``root``: its columns are mapped, and none is read.

    Where it was made of shards at a URL, that is its root.

    Raises BadInput if the file is missing, damaged or not such an index. What a large one holds is
    checked where it is used.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            if stored["format"] != FORMAT:
                raise ValueError(f"it has format {stored['format']}, this program {FORMAT}")
            shards = _as_strings(stored["shards"])
            classes, note = _as_strings(stored["classes"]), str(stored["note"])
            digest = str(stored["digest"]) if "digest" in stored else ""
            root = stored.get("url", root)
        kinds = _kinds(shards)
        columns: dict[str, Any] = map_arrays(path, ("names", *kinds))
        columns |= {name: columns[name].astype(kind, copy=False) for name, kind in kinds.items()}
        size = path.stat().st_size
        source = MappedFile(str(path), read_checksums(path), digest, (classes, note), columns)
        index = Index(
            root=str(root), classes=classes, shards=shards, note=note, source=source, **columns
        )
        _check_columns(index, kinds, whole=size <= CHECKED_BYTES)
    except FileNotFoundError as error:
        raise BadInput(f"no index {path}: {AGAIN}") from error
    except Exception as error:  # zipfile and NumPy have a dozen ways of refusing damage
        _require_readable(path, error)
        raise BadInput(f"index {path} is damaged or not an index ({error}): {AGAIN}") from error
    return index


def url_of_shards(data: Path) -> str:
    """Return the URL of the training shards that the index in a folder is of, or nothing.

    Raises BadInput where the file system refuses to tell.
    """
    path = index_path(data, "train")
    try:
        with np.load(path, allow_pickle=False) as stored:
            return str(stored["url"]) if "url" in stored else ""
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except Exception as error:  # a damaged one, which whoever opens it tells
        _require_readable(path, error)
        return ""


def _require_readable(path: Path, error: Exception) -> None:
    """Raise BadInput where the file system refused to read an index, which may be whole."""
    if isinstance(error, OSError) and error.errno in REFUSALS:
        raise BadInput(f"cannot read index {path}: {error.strerror}") from error


def open_splits(data: Path) -> tuple[Index, Index]:
    """Return the index of ``data/train`` and ``data/val``: prepared, or else by a walk.

    Raises BadInput if an index does not fit its folder or is of shards at a URL, and as
    ``scan_splits`` does.
    """
    if url := url_of_shards(data):
        raise BadInput(
            f"{data} is the index of tars at {url}, which training alone reads from there: give a "
            "folder with images"
        )
    check_splits(data)
    if not any(index_path(data, split).exists() for split in SPLITS):
        return scan_splits(data)
    train, val = (load_index(index_path(data, split), data / split) for split in SPLITS)
    check_classes(train, val)
    for index in (train, val):
        _check_fits(index)
    return train, val


def _check_columns(index: Index, columns: Mapping[str, type], whole: bool) -> None:
    """Raise ValueError where the arrays contradict each other, before anything indexes by them.

    Of a large index, which is not looked at ``whole``, the first and the last images.
    """
    if index.names.dtype.kind != "S" or not len(index):
        raise ValueError("it names no images")
    some = slice(None) if whole else slice(None, None, max(1, len(index) - 1))
    for name in columns:
        if getattr(index, name).shape != index.names.shape:
            raise ValueError(f"{name} does not fit the names")
        if name in ("heights", "widths", "file_bytes") and getattr(index, name)[some].min() < 1:
            raise ValueError(f"{name} has nothing in it")
    for column, end in (("labels", len(index.classes)), ("shard", len(index.shards))):
        places = getattr(index, column)
        if places is not None and not (places[some].min() >= 0 and places[some].max() < end):
            raise ValueError(f"{column} out of range")


def _check_fits(index: Index) -> None:
    """Raise BadInput if a look at the folder shows that it changed: a few calls, no walk."""
    if not index.packed:
        folders = _class_folders(index.root)
        if folders != len(index.classes):
            raise BadInput(
                f"{index.root} has {folders} class folders, its index {len(index.classes)}: {AGAIN}"
            )
    for image in (0, len(index) - 1):
        least = int(index.file_bytes[image]) + (int(index.offset[image]) if index.packed else 0)
        size = None
        try:
            size = os.stat(index.path(image)).st_size
        except FileNotFoundError:
            pass
        except OSError as error:
            raise BadInput(f"cannot read {index.path(image)}: {error.strerror}") from error
        if size is None or size < least or (size > least and not index.packed):
            state = "is missing" if size is None else "has changed"
            raise BadInput(f"{index.path(image)} {state} since its index was made: {AGAIN}")


def _class_folders(root: str) -> int:
    try:
        with os.scandir(root) as entries:
            return sum(entry.is_dir() for entry in entries)
    except OSError as error:
        raise BadInput(f"cannot read data folder {root}: {error.strerror}") from error


def _as_bytes(strings: Sequence[str]) -> np.ndarray:
    return np.array([os.fsencode(string) for string in strings], dtype=bytes)


def _as_strings(array: np.ndarray) -> tuple[str, ...]:
    return tuple(os.fsdecode(item) for item in array.tolist())
