"""Decode every image once: its size, and its faults and oddities.

Results are kept in small files, so that an interrupted verification continues where it stopped and
the next one looks only at files that changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dali_pipeline.dataset.index import Index
from dali_pipeline.preparation.image_check import ImageCheck, check_image
from dali_pipeline.preparation.parallel import parallel_map
from hvd_utils.cli.progress_bar import tqdm

PIECE = 256  # images that are checked and recorded together
FORMAT_OF_MEMORY = "looks-1"  # raised whenever a look means something else


@dataclass(frozen=True)
class Verified:
    """A split with its sizes, and the findings of those images that have some."""

    index: Index
    findings: dict[int, dict[str, str]]

    def images_with(self, kind: str) -> list[int]:
        """Return the ids of the images with a finding of this kind."""
        return [image for image, found in self.findings.items() if kind in found]


class _Piece(NamedTuple):
    root: str
    names: np.ndarray  # bytes
    memory: str


def verify(splits: Sequence[Index], work: Path, processes: int) -> list[Verified]:
    """Check every image of ``splits``, unless ``work`` has its result and it has not changed."""
    pieces = [piece for index in splits for piece in _pieces(index, work)]
    sizes = np.zeros((sum(map(len, splits)), 3), np.int64)  # a row for every image of all splits
    findings = {}
    row = 0
    with tqdm(total=len(sizes), unit="image", desc="decoding", disable=None) as bar:
        for looks in parallel_map(_check_piece, pieces, processes):
            for look in looks:
                sizes[row] = look.height, look.width, look.file_bytes
                if look.findings:
                    findings[row] = look.findings
                row += 1
            bar.update(len(looks))
    firsts = np.cumsum([0, *map(len, splits)]).tolist()
    return [
        _verified(index, sizes[first : first + len(index)], findings, first)
        for index, first in zip(splits, firsts, strict=False)
    ]


def _verified(index: Index, sizes: np.ndarray, findings: dict, first: int) -> Verified:
    """Return a split by its rows of ``sizes``; its image 0 is number ``first`` of ``findings``."""
    known = replace(
        index,
        heights=sizes[:, 0].astype(np.int32),
        widths=sizes[:, 1].astype(np.int32),
        file_bytes=sizes[:, 2].copy(),
    )
    numbers = range(first, first + len(index))
    return Verified(known, {n - first: found for n, found in findings.items() if n in numbers})


def _pieces(index: Index, work: Path) -> list[_Piece]:
    """Cut a split into pieces of one class each, so that a new image disturbs one class only."""
    bounds = np.searchsorted(index.labels, np.arange(len(index.classes) + 1)).tolist()
    pieces = []
    for name, start, end in zip(index.classes, bounds[:-1], bounds[1:], strict=True):
        folder = work / Path(index.root).name / name
        for number, first in enumerate(range(start, end, PIECE)):
            names = index.names[first : min(first + PIECE, end)]
            pieces.append(_Piece(index.root, names, str(folder / f"{number:04d}.json")))
    return pieces


def _check_piece(piece: _Piece) -> list[ImageCheck]:
    known = _recall(piece.memory)
    checks = {}
    for name in map(os.fsdecode, piece.names):
        path = os.path.join(piece.root, name)
        stat = os.stat(path)
        check = known.get(name)
        if check is None or (check.file_bytes, check.mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            check = check_image(path)
        checks[name] = check
    if checks != known:
        _remember(piece.memory, checks)
    return list(checks.values())


def _recall(memory: str) -> dict[str, ImageCheck]:
    try:
        with open(memory) as file:
            known = json.load(file)[FORMAT_OF_MEMORY]
            return {name: ImageCheck(*found) for name, found in known.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # nothing yet, or nothing that makes sense: look again


def _remember(memory: str, checks: dict[str, ImageCheck]) -> None:
    os.makedirs(os.path.dirname(memory), exist_ok=True)
    with open(f"{memory}.tmp", "w") as file:
        json.dump({FORMAT_OF_MEMORY: checks}, file)
    os.replace(f"{memory}.tmp", memory)
