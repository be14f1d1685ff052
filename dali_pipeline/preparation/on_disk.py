"""Columns of a data set that is being prepared: in files, so that no process holds them.

The files have no name, and end with the process however it ends.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dali_pipeline.dataset.index import Index
from dali_pipeline.dataset.mapped import map_or_read
from dali_pipeline.dataset.scan import images_by_class


def array_on_disk(folder: Path, dtype: Any, parts: Iterable[np.ndarray]) -> np.ndarray:
    """Return the ``parts`` as one array, mapped from a file on the disk of ``folder``.

    In memory where that maps no files. Raises OSError where that is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        size = sum(file.write(np.ascontiguousarray(part, dtype).tobytes()) for part in parts)
        file.flush()
        return map_or_read(file, dtype, 0, (size // np.dtype(dtype).itemsize,))


def scan_to_disk(root: Path, folder: Path) -> Index:
    """Return what ``scan`` of ``root`` does, its columns on the disk of ``folder``."""
    classes: list[str] = []
    counts: list[int] = []
    widths: list[int] = []

    def found() -> Iterator[np.ndarray]:
        for name, images in images_by_class(root):
            column = np.array(images, dtype=bytes)
            classes.append(name)
            counts.append(len(column))
            widths.append(column.itemsize)
            yield column.view(np.uint8)

    as_found = array_on_disk(folder, np.uint8, found())  # each class as wide as its longest name

    def same_width() -> Iterator[np.ndarray]:
        begin = 0
        for count, width in zip(counts, widths, strict=True):
            yield as_found[begin : begin + count * width].view(f"S{width}")
            begin += count * width

    names = array_on_disk(folder, f"S{max(widths)}", same_width())
    of_classes = (np.full(count, label) for label, count in enumerate(counts))
    labels = array_on_disk(folder, np.int32, of_classes)
    return Index(str(root), tuple(classes), names, labels)
