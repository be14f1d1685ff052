"""Read encoded images ahead of decoding, in several threads, which network storage needs.

Each is checked before DALI gets it: where DALI 2.4 cannot parse an image's header, it may end
the whole process, because its other threads still use what the failed one has freed.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from nvidia import nvimgcodec

from dali_pipeline.dataset.index import CHANGED, Index, bad_image
from dali_pipeline.loading.dali.diagnose import why_undecodable

READERS = 4  # files read at once by a process

JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


class EncodedReader:
    """Reads the images of one split; closing it is not needed."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="read")

    def read(self, ids: np.ndarray) -> list[np.ndarray]:
        """Return the bytes, uint8 (length,), of each image.

        Raises BadImage if one cannot be read, is empty, has no header that DALI can parse, has
        another size than in the index, or is a JPEG without its end.
        """
        sizes = np.stack(self._index.sizes(ids), axis=1)
        # Few tasks: handing one over takes as long as a read.
        parts = zip(np.array_split(ids, READERS), np.array_split(sizes, READERS), strict=True)
        read = self._pool.map(self._read_some, parts)
        return list(itertools.chain.from_iterable(read))

    def _read_some(self, part: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
        ids, sizes = (column.tolist() for column in part)
        return [self._read_one(image, size) for image, size in zip(ids, sizes, strict=True)]

    def _read_one(self, image: int, size: list[int]) -> np.ndarray:
        data = self._index.read(image)
        if not data:
            raise bad_image(self._index, image, "the file is empty")
        if is_cut_off(data):
            raise bad_image(self._index, image, "the JPEG is cut off")
        stored = header_size(data)
        if stored is None:
            raise bad_image(self._index, image, why_undecodable(data))
        if [*stored] != size:
            raise bad_image(self._index, image, CHANGED)
        return np.frombuffer(data, dtype=np.uint8)


def header_size(data: bytes) -> tuple[int, int] | None:
    """Return height and width in pixels by DALI's own parser; None where that cannot parse it."""
    try:
        header = nvimgcodec.CodeStream(data)
        return header.height, header.width
    except RuntimeError:
        return None


def is_cut_off(data: bytes) -> bool:
    """Return whether this is a JPEG that ends in the middle of its last scan.

    A decoder of regions may not notice: it does not look below the region.
    """
    if not data.startswith(JPEG_START) or data.endswith(JPEG_END):
        return False
    return data.rfind(JPEG_END) < data.rfind(JPEG_SCAN)  # what follows the end does not matter
