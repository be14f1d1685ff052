"""A file of the cache: bytes with a checksum for each page of them.

So a piece of a large entry is checked without reading all of it, and whatever ended a writer or
damaged the disk, what is not whole is not taken for the data.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np

PAGE = 1 << 16  # bytes with one CRC-32
_LENGTH = 8  # bytes at the end, which hold the number of bytes


def size_of(length: int) -> int:
    """Return how many bytes a file with so many has."""
    return length + 4 * -(-length // PAGE) + _LENGTH


def write_entry(path: Path, data: memoryview | bytes) -> None:
    """Write a new file. Raises OSError."""
    data = memoryview(data)
    pages = [zlib.crc32(data[at : at + PAGE]) for at in range(0, len(data), PAGE)]
    with path.open("xb", buffering=0) as file:
        for part in (data, np.array(pages, "<u4").data, np.array([len(data)], "<u8").data):
            part = part.cast("B")
            while part.nbytes:
                part = part[file.write(part) :]


def read_entry(descriptor: int, offset: int, length: int) -> bytes:
    """Return bytes of an open file, fewer where they end; raises ValueError if it is damaged."""
    size = os.fstat(descriptor).st_size
    whole = int.from_bytes(os.pread(descriptor, _LENGTH, max(0, size - _LENGTH)), "little")
    if size < _LENGTH or size_of(whole) != size:
        raise ValueError("not whole")
    end = min(offset + length, whole)
    if end <= offset:
        return b""
    first, last = offset // PAGE, -(-end // PAGE)
    pages = os.pread(descriptor, min(last * PAGE, whole) - first * PAGE, first * PAGE)
    checksums = os.pread(descriptor, 4 * (last - first), whole + 4 * first)
    view = memoryview(pages)
    for page, expected in enumerate(np.frombuffer(checksums, "<u4").tolist()):
        if zlib.crc32(view[page * PAGE : (page + 1) * PAGE]) != expected:
            raise ValueError("a checksum is wrong")
    return bytes(view[offset - first * PAGE : end - first * PAGE])
