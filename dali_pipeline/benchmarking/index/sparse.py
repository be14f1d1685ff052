"""An index of very many images of which few are written: the rest of its file takes no blocks.

So an index of 10⁹ images, 50 GB long, lies on a disk that has less. It is for measurements and
tests that know beforehand which images they look up. All that is not written is zeros, which no
image has for its height, so a look-up of any other image ends with BadInput.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from dali_pipeline.dataset.index import Index
from dali_pipeline.dataset.index_file import COLUMNS, PACKED_COLUMNS, save_index

ALL = 0xFFFFFFFF  # in a zip file: the number is in the 64 bits of the extra field
VERSION = 45  # of the format: zip64


def write_sparse_index(path: Path, some: Index, ids: np.ndarray, length: int) -> None:
    """Write an index of ``length`` images, in which image ``ids[i]`` is image i of ``some``.

    Its digest is that of ``some``. Raises OSError where the file system has no files so long.
    """
    save_index(path, some)  # for the small arrays, and for the kinds of the others
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    columns = ["names", *COLUMNS, *(PACKED_COLUMNS if some.packed else ())]
    places = _write_zip(path, arrays, dict.fromkeys(columns, length))
    for name in columns:
        column = np.memmap(path, arrays[name].dtype, "r+", places[name], (length,))
        written = arrays[name] != np.zeros((), arrays[name].dtype)  # zeros are there already
        column[ids[written]] = arrays[name][written]


def _write_zip(
    path: Path, arrays: Mapping[str, np.ndarray], lengths: Mapping[str, int]
) -> dict[str, int]:
    """Write an ``.npz`` file; return where the arrays in ``lengths`` begin, which are holes.

    The checksums of these are 0, which is seen only where a whole array is read (APPNOTE.TXT, 4.3
    and 4.5.3; ``zipfile`` would write the zeros).
    """
    places, directory = {}, []
    with path.open("wb") as file:
        for name, array in arrays.items():
            begin, content = file.tell(), io.BytesIO()
            if name in lengths:
                shape = (lengths[name],)
                header = {"descr": array.dtype.str, "fortran_order": False, "shape": shape}
                npy.write_array_header_1_0(content, header)
                hole, crc = lengths[name] * array.dtype.itemsize, 0
            else:
                npy.write_array(content, array, allow_pickle=False)
                hole, crc = 0, zlib.crc32(content.getvalue())
            size, full = len(content.getvalue()) + hole, f"{name}.npy".encode()
            _local_header(file, full, crc, size)
            file.write(content.getvalue())
            places[name] = file.tell()
            file.seek(hole, os.SEEK_CUR)
            directory.append(_central_header(full, crc, size, begin))
        _end(file, directory)
    return places


def _local_header(file: BinaryIO, name: bytes, crc: int, size: int) -> None:
    extra = struct.pack("<2H2Q", 1, 16, size, size)
    fields = VERSION, 0, 0, 0, 0x21, crc, ALL, ALL, len(name), len(extra)
    file.write(struct.pack("<4s5H3L2H", b"PK\3\4", *fields) + name + extra)


def _central_header(name: bytes, crc: int, size: int, begin: int) -> bytes:
    extra = struct.pack("<2H3Q", 1, 24, size, size, begin)
    fields = VERSION, VERSION, 0, 0, 0, 0x21, crc, ALL, ALL, len(name), len(extra), 0, 0, 0, 0, ALL
    return struct.pack("<4s6H3L5H2L", b"PK\1\2", *fields) + name + extra


def _end(file: BinaryIO, directory: Sequence[bytes]) -> None:
    begin, size, count = file.tell(), sum(map(len, directory)), len(directory)
    file.write(b"".join(directory))
    end = file.tell()
    fields = 44, VERSION, VERSION, 0, 0, count, count, size, begin
    file.write(struct.pack("<4sQ2H2L4Q", b"PK\6\6", *fields))
    file.write(struct.pack("<4sLQL", b"PK\6\7", 0, end, 1))
    file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, ALL, 0))
