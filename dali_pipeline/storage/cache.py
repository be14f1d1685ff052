"""A cache of bounded size on a node's disk, shared by its processes and kept between jobs.

``FOLDER/VERSION/`` belongs to one data set: ``index/``, entries by the hash of what they are, and
``partial/`` for what is being written. An entry gets its name when it is whole, and is checked
whenever it is read, so a writer may be killed and the power may fail. Who uses a version holds a
shared lock on its file ``in-use``; the kernel frees it with the process.

Where the cache is full, entries of data sets that nobody uses go first, the least recently used
ones before others. What follows depends on the order of training. Where images come in windows,
the least recently used go. In the global order each image is as likely to come next as any other,
so what is there stays and the rest is not kept: c of the set in the cache then spares c of the
requests, where replacing would spare c²/2 (Mohan et al. 2021, "Analyzing and mitigating data stalls
in DNN training", section 4.1).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import threading
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import TextIO
from uuid import uuid4

from dali_pipeline.storage.entry import read_entry, size_of, write_entry
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import launched_rank

RESERVED = 1 << 26  # bytes that a process claims at once, so that it seldom needs the lock
SPARE = 0.05  # of the disk stays free
LEFT = 0.9  # of the size is kept when entries go
INDEX, PARTIAL = "index", "partial"  # folders of a version beside those of entries
IN_USE = "in-use"  # by this file a version is known: the folder may hold what is no cache
_FOLDER = re.compile(rf"[0-9a-f]{{3}}|{INDEX}")  # whose files count, and may go


class Cache:
    """The entries of one data set; any thread and process may use it at once."""

    def __init__(self, folder: Path, version: str, limit: int, replaces: bool) -> None:
        """Open a cache of at most ``limit`` bytes; it ``replaces`` its own entries, or keeps them.

        Raises BadInput where the folder cannot be written.
        """
        self._root, self._limit, self._replaces = folder, limit, replaces
        self.folder = folder / version
        self._partial = self.folder / PARTIAL
        self.full = False  # nothing more is written
        self._claimed = 0
        self._lock = threading.Lock()
        try:
            self._partial.mkdir(parents=True, exist_ok=True)
            self._in_use = (self.folder / IN_USE).open("a+")  # as long as this is
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove_partial(self._partial)  # nobody uses it: no writer of that is left
            fcntl.flock(self._in_use, fcntl.LOCK_SH)
        except OSError as error:
            raise BadInput(
                f"cannot use --cache {folder}: {error.strerror}; give a folder on the node's disk"
            ) from error

    def has(self, key: object) -> bool:
        """Whether there is such an entry, whole or damaged."""
        return os.path.exists(self._path(key))  # False, too, where the disk does not answer

    def read(self, key: object, offset: int, length: int) -> bytes | None:
        """Return bytes of an entry, fewer where it ends; None where there is none that is whole."""
        path = self._path(key)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return None
        try:
            data = read_entry(descriptor, offset, length)
            with contextlib.suppress(OSError):  # another user's
                os.utime(descriptor)  # the time of its last use
            return data
        except (OSError, ValueError):
            with contextlib.suppress(OSError):  # likewise; no image is bad for that
                path.unlink()
            return None
        finally:
            os.close(descriptor)

    def write(self, key: object, data: memoryview | bytes) -> None:
        """Keep an entry if there is room; what the disk refuses is not kept either."""
        if self.full:
            return
        temporary = self.partial_path()
        path = self._path(key)
        try:
            if not self.claim(size_of(len(data))):
                self._is_full("is full")
                return
            path.parent.mkdir(exist_ok=True)
            write_entry(temporary, data)
            os.replace(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            self._is_full(f"cannot be written ({error.strerror})")

    def partial_path(self) -> Path:
        """Return a name for what is being written, which nobody else has.

        A process may have several caches open, and containers of a node the same process numbers.
        """
        return self._partial / uuid4().hex

    def _path(self, key: object) -> Path:
        name = blake2b(repr(key).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        return self.folder / name[:3] / name[3:]

    def claim(self, size: int) -> bool:
        """Take room for so many bytes; return whether there is some."""
        with self._lock:
            if self._claimed < size:
                claim = max(size, min(RESERVED, self._limit // 64))
                with locked(self._root / "used") as file:
                    text = file.read().strip()
                    known = text.isdecimal()  # else a power cut left something else, or nothing
                    used = int(text) if known else 0
                    if not known or self._lacking(used, claim) > 0:
                        used = self._make_room(claim)
                    if self._lacking(used, claim) > 0:
                        return False
                    file.seek(0)
                    file.truncate()
                    file.write(str(used + claim))
                self._claimed += claim
            self._claimed -= size
        return True

    def _lacking(self, used: int, claim: int, share: float = 1) -> int:
        """Return how many bytes have to go before ``claim`` fits into this share of the size."""
        disk = shutil.disk_usage(self._root)
        return max(
            used + claim - int(share * self._limit), claim + int(SPARE * disk.total) - disk.free
        )

    def _is_full(self, state: str) -> None:
        if not self.full and launched_rank() == 0:
            print(
                f"warning: --cache {self._root} {state}: what is not in it is read from the "
                "storage each time; a larger --cache-size, or another disk, helps",
                flush=True,
            )
        self.full = True

    def _make_room(self, claim: int) -> int:
        """Remove entries until the claim fits with a tenth to spare; return the bytes that stay."""
        used, others, own = 0, [], []
        with contextlib.ExitStack() as unused:  # until its entries are gone
            for version in self._root.iterdir():
                files = _files(version)
                used += sum(size for _, size, _ in files)
                if version == self.folder:
                    own = [file for file in files if not file[2].startswith(f"{version}/{INDEX}/")]
                elif files and (lock := _lock_unused(version)):
                    unused.enter_context(lock)
                    others += files
            lacking = self._lacking(used, claim, LEFT)
            for _, size, path in sorted(others) + (sorted(own) if self._replaces else []):
                if lacking <= 0:
                    break
                with contextlib.suppress(OSError):
                    os.unlink(path)
                    used -= size
                    lacking -= size
        return used


def _files(version: Path) -> list[tuple[float, int, str]]:
    """Return when each file of a version was used last, its bytes and its path.

    None of a folder that is no version, or another user's.
    """
    found: list[tuple[float, int, str]] = []
    if not os.path.isfile(version / IN_USE):
        return found
    with contextlib.suppress(OSError):
        for folder in os.scandir(version):
            if _FOLDER.fullmatch(folder.name):
                for file in os.scandir(folder):
                    with contextlib.suppress(OSError):  # another process removed it
                        status = file.stat()
                        found.append((status.st_mtime, status.st_size, file.path))
    return found


def _lock_unused(version: Path) -> TextIO | None:
    """Lock a version as long as the returned file is open; None where a process uses it.

    Likewise where that cannot be known. Opened to be written: NFS wants it for such a lock.
    """
    try:
        file = (version / IN_USE).open("r+")
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _remove_partial(folder: Path) -> None:
    """Remove what writers left half-written."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another user's
            path.unlink()


@contextlib.contextmanager
def locked(path: Path) -> Iterator:
    """Hold the lock of a file, which is open to be read and written, and made if need be."""
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
