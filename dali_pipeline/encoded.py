"""Encoded images, read ahead of their decoding by several threads, as network storage wants it."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dali_pipeline.index import Index, bad_image

READERS = 4  # files read at once by a process

JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


class EncodedReader:
    """Reads the images of one split; closing it is not needed."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="read")

    def read(self, ids: np.ndarray) -> list[np.ndarray]:
        """Return the bytes, uint8 (length,), of each image.

        Raises BadImage if one cannot be read, is empty or is a JPEG without its end.
        """
        parts = np.array_split(ids, READERS)  # few tasks: handing one over takes as long as a read
        read = self._pool.map(lambda part: [self._read_one(i) for i in part.tolist()], parts)
        return list(itertools.chain.from_iterable(read))

    def _read_one(self, image: int) -> np.ndarray:
        data = self._index.read(image)
        if not data:
            raise bad_image(self._index, image, "the file is empty")
        if is_cut_off(data):
            raise bad_image(self._index, image, "the JPEG is cut off")
        return np.frombuffer(data, dtype=np.uint8)


def is_cut_off(data: bytes) -> bool:
    """Return whether this is a JPEG that ends in the middle of its last scan.

    A decoder of regions may not notice: it does not look below the region.
    """
    if not data.startswith(JPEG_START) or data.endswith(JPEG_END):
        return False
    return data.rfind(JPEG_END) < data.rfind(JPEG_SCAN)  # what follows the end does not matter
