"""Lock a run's folder for one job; the lock ends with the process that holds it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hvd_utils.cli.errors import BadInput

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_POLL_SECONDS = 0.1


class InUse(BadInput):
    """Another job holds the lock of a folder."""


class FolderLock:
    """The lock of the folder ``output``, a file ``lock`` in it that names its holder.

    The kernel frees it when the holder ends in whatever way; the file itself stays. ``setting`` is
    what the user may choose another of.
    """

    def __init__(self, output: Path, setting: str = "--output") -> None:
        self._output = output
        self._setting = setting
        self._path = output / "lock"
        self._descriptor: int | None = None

    def acquire(self, patience_seconds: float = 20) -> str | None:
        """Take the lock, waiting so long for a holder that may be about to end.

        Returns None, or a warning where the file system has no locks, or has them for each host
        by itself. Raises InUse naming the
        holder if there is one, and BadInput if the file cannot be written.
        """
        deadline = time.monotonic() + patience_seconds
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            while not self._try():
                if time.monotonic() >= deadline:
                    raise InUse(
                        f"{self._output} is in use by {self._holder()}: wait for it, end it, or "
                        f"choose another {self._setting}"
                    )
                time.sleep(_POLL_SECONDS)
            self._sign()
        except OSError as error:
            self.release()
            if error.errno in NO_LOCKS:
                return (
                    f"warning: the file system of {self._output} has no locks: see to it that no "
                    "other job uses this folder"
                )
            raise BadInput(
                f"cannot lock {self._path}: {error.strerror}; make room or choose another "
                f"{self._setting}"
            ) from error
        except BaseException:
            self.release()
            raise
        if locks_on_one_host_only(self._output, _mounts()):
            return (
                f"warning: {self._output} lies on NFS mounted without locks between hosts (nolock "
                "or local_lock): see to it that no job on another host uses this folder"
            )
        return None

    def release(self) -> None:
        """Free the lock, if it is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _try(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _sign(self) -> None:
        holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, (json.dumps(holder) + "\n").encode(), 0)
        os.fsync(self._descriptor)  # a network file system then shows it to other hosts

    def _holder(self) -> str:
        try:
            holder = last_holder(self._output)
            return f"a job on {holder['host']}, pid {holder['pid']}, started {holder['started']}"
        except (LookupError, TypeError):  # it has only just begun
            return "another job"


@contextmanager
def locked_folder(folder: Path, setting: str) -> Iterator[None]:
    """Hold the lock of a folder, which is made, for a block; print a warning about it, if any.

    Raises InUse where another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder, setting)
    if warning := lock.acquire(patience_seconds=0):
        print(warning, flush=True)
    try:
        yield
    finally:
        lock.release()


def locks_on_one_host_only(folder: Path, mounts: str) -> bool:
    """Return whether ``folder`` is on NFS whose ``flock`` other hosts do not see.

    ``mounts`` is the text of ``/proc/self/mountinfo``; what is not understood there is passed over.
    """
    place = os.path.realpath(folder)
    holds, found = "", False
    for line in mounts.splitlines():
        mount, _, system = line.partition(" - ")
        fields, kind = mount.split(), system.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        point = fields[4].encode().decode("unicode_escape")  # a space is written \\040
        if os.path.commonpath([place, point]) == point and len(point) >= len(holds):
            holds = point
            options = kind[2].split(",")
            nowhere = {"nolock", "local_lock=flock", "local_lock=all"} & set(options)
            found = kind[0].startswith("nfs") and bool(nowhere)
    return found


def _mounts() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text(errors="replace")
    except OSError:
        return ""


def last_holder(output: Path) -> dict[str, Any] | None:
    """Return host, pid and start of the job that took the lock of ``output`` last, if known."""
    try:
        holder = json.loads((output / "lock").read_text())
    except (OSError, ValueError, RecursionError):
        return None
    known = isinstance(holder, dict) and {"host", "pid"} <= holder.keys()
    return holder if known else None


def is_held(output: Path) -> bool | None:
    """Return whether a job holds the lock of ``output``; None where that is unknown.

    Not every file system shows locks of other hosts: there False means only, none on this one.
    """
    try:
        descriptor = os.open(output / "lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # another job retries
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
