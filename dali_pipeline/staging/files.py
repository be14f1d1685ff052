"""The files of a data set, those that a copy lacks, and the room that they need."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

from dali_pipeline.dataset.index_file import SPLITS, index_path
from hvd_utils.cli.errors import BadInput


class File(NamedTuple):
    """A file below a data folder, its bytes and when it was changed, nanoseconds.

    That is 0 where its server does not tell.
    """

    name: str
    size: int
    mtime_ns: int

    def same(self, other: File | None) -> bool:
        """Whether it looks the same: by size and whole seconds, all that some disks keep."""
        second = 10**9
        return (
            other is not None
            and self.size == other.size
            and self.mtime_ns // second == other.mtime_ns // second
        )


def list_files(data: Path, threads: int) -> list[File]:
    """Return all that training may read of a data folder, in the order of names.

    That is, what is in train/ and val/, and their indexes. Raises OSError if it cannot be read.
    """
    files, folders = [], []
    for split in SPLITS:
        with contextlib.suppress(FileNotFoundError):
            path = index_path(data, split)
            files.append(_file(path.name, path.stat()))
        for entry in os.scandir(data / split) if (data / split).is_dir() else ():
            name = f"{split}/{entry.name}"
            if entry.is_dir():
                folders.append(name)
            elif stat.S_ISREG(entry.stat().st_mode):  # a FIFO would never end
                files.append(_file(name, entry.stat()))
    with ThreadPool(threads) as pool:  # a look at a file waits for the file system
        for found in pool.imap_unordered(partial(_below, data), folders):
            files += found
    return sorted(files)


def missing(wanted: Sequence[File], present: Sequence[File], folder: Path) -> list[File]:
    """Return which of the ``wanted`` files are not ``present``, or not the same, in ``folder``.

    Raises BadInput if others are there, which training might take for images of the set.
    """
    there = {file.name: file for file in present}
    extra = there.keys() - {file.name for file in wanted}
    if extra:
        raise BadInput(
            f"{folder} has {len(extra):,} files that the source has not, first {min(extra)}: "
            "remove them, or choose another DESTINATION"
        )
    return [file for file in wanted if not file.same(there.get(file.name))]


def check_room(folder: Path, sizes: Sequence[int]) -> None:
    """Raise BadInput unless files of these sizes, bytes, still fit on the disk of ``folder``."""
    disk = os.statvfs(folder)
    blocks = sum(-(-size // disk.f_frsize) for size in sizes)
    if blocks > disk.f_bavail:
        needed, free = blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
        raise BadInput(
            f"{folder} is too small: {needed:,} bytes are needed, {free:,} are free; make room or "
            "choose another DESTINATION"
        )
    if disk.f_files and len(sizes) > disk.f_favail:  # some file systems count no files
        raise BadInput(
            f"{folder} has room for {disk.f_favail:,} more files, {len(sizes):,} are needed: "
            "stage shards (--pack), or choose another DESTINATION"
        )


def _below(data: Path, folder: str) -> list[File]:
    return list(_walk(data, folder))


def _walk(data: Path, folder: str) -> Iterator[File]:
    for entry in os.scandir(data / folder):
        name = f"{folder}/{entry.name}"
        if entry.is_dir():
            yield from _walk(data, name)
        elif stat.S_ISREG(entry.stat().st_mode):
            yield _file(name, entry.stat())


def _file(name: str, stat: os.stat_result) -> File:
    return File(name, stat.st_size, stat.st_mtime_ns)
