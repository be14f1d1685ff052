"""Arrays of an ``.npz`` file, mapped into memory where they lie: opening reads none of them.

NumPy stores the members of an ``.npz`` as they are, one after the other, so each can be mapped. The
processes of a node share the pages that they touch; none is private. Plain NumPy, not Arrow: one
more library would bring the same bytes and the same ``mmap``, and any NumPy reads the file.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from hvd_utils.cli.errors import BadInput

CHECKED_BYTES = 1 << 27  # a file up to this is read once for its checksums when it is opened
CHUNK = 1 << 16  # elements looked at or written at a time


@dataclass(frozen=True)
class MappedFile:
    """A file and the arrays mapped from it, by name.

    ``checksums`` are the file's own. ``digest`` is the data set's, or empty: of its names, its
    labels and what they are ``of``.
    """

    path: str
    checksums: tuple[tuple[str, int], ...]
    digest: str
    of: tuple  # classes and note
    columns: Mapping[str, np.ndarray]

    def remap(self) -> MappedFile:
        """Map the file again where this was received from another process, without its columns.

        Raises BadInput where it is not there or another one.
        """
        try:
            if read_checksums(self.path) == self.checksums:
                return replace(self, columns=map_arrays(self.path, self.columns))
            state = "is another file"
        except Exception as error:  # zipfile and NumPy have a dozen ways of refusing damage
            state = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise BadInput(
            f"index {self.path} {state} on {socket.gethostname()}: copy or mount the same data on "
            "every node"
        )


def read_checksums(path: str | Path) -> tuple[tuple[str, int], ...]:
    """Return name and CRC-32 of each array, as an ``.npz`` file lists them; no array is read."""
    with zipfile.ZipFile(path) as archive:
        return tuple((member.filename, member.CRC) for member in archive.infolist())


def map_arrays(path: str | Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return the named arrays of an ``.npz`` file, mapped, or read where that cannot be.

    A file up to ``CHECKED_BYTES`` is checked against its checksums. Raises what NumPy, zipfile and
    OSError raise where it is damaged.
    """
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        if os.fstat(file.fileno()).st_size <= CHECKED_BYTES and archive.testzip():
            raise zipfile.BadZipFile("its checksum is wrong")
        return {name: _map_array(file, archive, f"{name}.npy") for name in names}


def _map_array(file: BinaryIO, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    info = archive.getinfo(name)
    with archive.open(info) as member:
        if info.compress_type != zipfile.ZIP_STORED:
            return npy.read_array(member, allow_pickle=False)
        version = npy.read_magic(member)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(member)
        header = member.tell()
    if dtype.hasobject or fortran:
        raise ValueError(f"{name} is no column of numbers or bytes")
    length = math.prod(shape) * dtype.itemsize
    if header + length != info.file_size:
        raise ValueError(f"{name} is not as long as it says")
    if not length:
        return np.empty(shape, dtype)  # nothing can be mapped
    # Behind the name and what a zip file may add to it (APPNOTE.TXT, 4.3.7).
    file.seek(info.header_offset + 26)
    name_length, extra_length = np.frombuffer(file.read(4), "<u2").tolist()
    begin = info.header_offset + 30 + name_length + extra_length + header
    return map_or_read(file, dtype, begin, shape)


def map_or_read(file: IO[bytes], dtype: Any, begin: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array at a place of a file, mapped.

    Read where the file system maps no files (ENODEV, mmap(2)), as some of FUSE: each process then
    holds its own.
    """
    try:
        return np.asarray(np.memmap(file, dtype, "r", begin, shape))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
    file.seek(begin)
    return np.fromfile(file, dtype, math.prod(shape)).reshape(shape)


class ArrayWriter:
    """Writes an ``.npz`` file array by array, none of them whole in memory. A context manager."""

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, *failed: object) -> None:
        self._archive.close()

    def array(self, name: str, value: Any) -> None:
        """Write a small array."""
        with self._archive.open(_member(name), "w", force_zip64=True) as member:
            npy.write_array(member, np.asarray(value), allow_pickle=False)

    def column(
        self, name: str, dtype: np.dtype, length: int, parts: Iterable[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Write a long one of ``parts``; yield each as written. Raises ValueError by its length."""
        header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
        written = 0
        with self._archive.open(_member(name), "w", force_zip64=True) as member:
            npy.write_array_header_1_0(member, header)
            for part in parts:
                part = np.ascontiguousarray(part, dtype)
                member.write(part.tobytes())
                written += len(part)
                yield part
        if written != length:
            raise ValueError(f"{name} has {written} entries instead of {length}")


def _member(name: str) -> zipfile.ZipInfo:
    """Return the head of an array in the file, without the time: the same arrays, the same file."""
    return zipfile.ZipInfo(f"{name}.npy")


def pieces(column: np.ndarray) -> Iterator[np.ndarray]:
    """Yield a column in pieces of ``CHUNK``."""
    return (column[start : start + CHUNK] for start in range(0, len(column), CHUNK))
