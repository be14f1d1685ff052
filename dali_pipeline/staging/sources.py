"""Where a data set is staged from: a folder, or an object store."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from dali_pipeline.dataset.index import AGAIN
from dali_pipeline.dataset.index_file import (
    SPLITS,
    index_path,
    load_index,
    open_splits,
    save_index,
)
from dali_pipeline.dataset.open_remote import open_alone
from dali_pipeline.staging.files import File, list_files
from dali_pipeline.storage.client import Client, Stat
from dali_pipeline.storage.workers import Workers
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import Settings

CHUNK = 1 << 20  # bytes of a file read at once
PART = 1 << 23  # bytes of an object, likewise


class Source(Protocol):
    """A data set that is copied. Any thread may ask; raises OSError and BadInput."""

    def files(self, threads: int) -> list[File]:
        """Return all that training may read, in the order of names."""

    def look(self, name: str) -> File:
        """Return a file as it is now."""

    def chunks(self, name: str) -> Iterator[bytes | memoryview]:
        """Yield a file's bytes."""

    def where(self, name: str) -> str:
        """Return where a user finds a file."""


class Folder:
    """A folder; see ``Source``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def files(self, threads: int) -> list[File]:
        """Return all that training may read, after a look whether its index, if any, fits."""
        if any(index_path(self._path, split).exists() for split in SPLITS):
            open_splits(self._path)
        return list_files(self._path, threads)

    def look(self, name: str) -> File:
        """Return a file as it is now."""
        status = os.stat(self._path / name)
        return File(name, status.st_size, status.st_mtime_ns)

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield a file's bytes."""
        with (self._path / name).open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def where(self, name: str) -> str:
        """Return a file's path."""
        return str(self._path / name)


def _look_at_all(source: Source, names: Sequence[str], threads: int) -> list[File]:
    """Return files as they are now, in the order of names; many looks are under way at once."""
    workers = Workers(threads)
    return [look.result() for look in [workers.submit(source.look, n) for n in sorted(names)]]


class ObjectStore:
    """Shards at a URL with their index, which names them; see ``Source``."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._client = Client(self._url)

    def files(self, threads: int) -> list[File]:
        """Return the index files and the shards that they name."""
        with tempfile.TemporaryDirectory() as folder:
            everything = Settings(
                recipe="stage", data=self._url, cache=Path(folder), cache_size="1000000TB"
            )
            splits = dict(zip(SPLITS, open_alone(everything), strict=True))
            for split, index in splits.items():
                if index.root != f"{self._url}/{split}":
                    raise BadInput(
                        f"{self._url} is the index of tars at {index.root}: copy its two files "
                        "to a folder and stage that"
                    )
            names = [f"{split}/{shard}" for split, own in splits.items() for shard in own.shards]
        names += [index_path(Path(), split).name for split in SPLITS]
        return _look_at_all(self, names, threads)

    def look(self, name: str) -> File:
        """Return an object as it is now; raises BadInput where there is none."""
        stat = self._stat(name)
        return File(name, stat.size, stat.mtime_ns)

    def _stat(self, name: str) -> Stat:
        try:
            return self._client.stat(self.where(name))
        except FileNotFoundError as error:
            raise BadInput(
                f"{self.where(name)} is missing since its index was made: {AGAIN}"
            ) from error

    def chunks(self, name: str) -> Iterator[memoryview]:
        """Yield an object's bytes; raises BadInput where it is another one meanwhile."""
        url, first, offset = self.where(name), self._stat(name), 0
        while offset < first.size:
            length = min(PART, first.size - offset)
            part, stat = self._client.require(url, offset, length)
            if len(part) < length or stat.version != first.version:
                raise BadInput(f"{url} was replaced while it was copied: start again")
            yield part
            offset += len(part)

    def where(self, name: str) -> str:
        """Return an object's URL."""
        return f"{self._url}/{name}"


class IndexedTars:
    """Tars at a URL, of which a folder has the index; see ``Source``.

    The copy's index is the same but for the URL: its tars lie in train/ and val/ beside it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._splits = {s: load_index(index_path(folder, s), folder / s) for s in SPLITS}
        self._stores = {split: ObjectStore(index.root) for split, index in self._splits.items()}
        self._written = tempfile.TemporaryDirectory(prefix="stage-index-")
        self._writing = threading.Lock()

    def files(self, threads: int) -> list[File]:
        """Return the tars that the index names, and both indexes."""
        names = [f"{split}/{tar}" for split, own in self._splits.items() for tar in own.shards]
        names += [index_path(Path(), split).name for split in SPLITS]
        return _look_at_all(self, names, threads)

    def look(self, name: str) -> File:
        """Return a tar as it is now, or an index as it will be, with the time of the given one."""
        split, _, tar = name.partition("/")
        if tar:
            return self._stores[split].look(tar)._replace(name=name)
        changed = os.stat(self._folder / name).st_mtime_ns
        return File(name, self._index(name).stat().st_size, changed)

    def chunks(self, name: str) -> Iterator[bytes | memoryview]:
        """Yield a file's bytes."""
        split, _, tar = name.partition("/")
        if tar:
            return self._stores[split].chunks(tar)
        return Folder(self._index(name).parent).chunks(name)

    def where(self, name: str) -> str:
        """Return a tar's URL, or an index's path."""
        split, _, tar = name.partition("/")
        return self._stores[split].where(tar) if tar else str(self._folder / name)

    def _index(self, name: str) -> Path:
        path = Path(self._written.name, name)
        with self._writing:
            if not path.exists():
                save_index(path, self._splits[name.partition(".")[0]])
        return path
