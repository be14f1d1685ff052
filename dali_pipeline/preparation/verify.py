"""Decode every image once: its size, and its faults and oddities.

Results are kept in small files, so that an interrupted verification continues where it stopped and
the next one looks only at files that changed.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from dali_pipeline.dataset.index import Index
from dali_pipeline.dataset.mapped import pieces
from dali_pipeline.preparation.image_check import (
    KINDS,
    NO_TIME,
    UNDECODABLE,
    ImageCheck,
    check_image,
)
from dali_pipeline.preparation.on_disk import array_on_disk
from dali_pipeline.preparation.parallel import parallel_map
from hvd_utils.cli.progress_bar import tqdm

PIECE = 256  # images that are checked and recorded together
FORMAT_OF_MEMORY = "looks-1"  # raised whenever a look means something else
ROW = np.dtype(
    [("file_bytes", np.int64), ("heights", np.int32), ("widths", np.int32), ("found", np.uint8)]
)


class Kind(NamedTuple):
    """How many images have a finding, and the first of them with its detail."""

    images: int
    first: int
    detail: str


@dataclass(frozen=True)
class Verified:
    """A split with its sizes, and what was found; all columns are on the disk.

    ``found`` has a bit for each kind of finding that an image has, uint8 (images,). ``lines`` is a
    file with [name, kind, detail] of each finding, in JSON.
    """

    index: Index
    found: np.ndarray
    kinds: dict[str, Kind]
    lines: TextIO

    def images_with(self, *kinds: str, but: Sequence[str] = ()) -> Iterator[int]:
        """Yield the ids of the images with a finding of these ``kinds`` and none of the others."""
        first = 0
        for part in pieces(self.found):
            these = (part & _bits(kinds) != 0) & (part & _bits(but) == 0)
            yield from (first + np.flatnonzero(these)).tolist()
            first += len(part)

    def without(self, kind: str, column: str) -> Iterator[np.ndarray]:
        """Yield a column of the index in parts, without the images that have such a finding."""
        values = pieces(getattr(self.index, column))
        for part, found in zip(values, pieces(self.found), strict=True):
            yield part[found & _bits([kind]) == 0]

    def findings(self) -> Iterator[tuple[str, str, str]]:
        """Yield name, kind and detail of each finding, in the order of images."""
        self.lines.seek(0)
        for line in self.lines:
            name, kind, detail = json.loads(line)
            yield name, kind, detail


def _bits(kinds: Sequence[str]) -> int:
    return sum(1 << KINDS.index(kind) for kind in kinds)


class _Piece(NamedTuple):
    root: str
    names: np.ndarray  # bytes
    memory: str


def verify(splits: Sequence[Index], work: Path, processes: int) -> list[Verified]:
    """Check every image of ``splits``, unless ``work`` has its result and it has not changed.

    What is in memory does not grow with the number of images.
    """
    tasks = (piece for index in splits for piece in _pieces(index, work))
    with tqdm(total=sum(map(len, splits)), unit="image", desc="decoding", disable=None) as bar:
        looks = parallel_map(_check_piece, tasks, processes)
        return [_record(index, looks, work, bar.update) for index in splits]


def _record(
    index: Index, looks: Iterator[list[ImageCheck]], work: Path, advance: Callable[[int], object]
) -> Verified:
    """Write down the looks at a split's images, which come next."""
    work.mkdir(parents=True, exist_ok=True)
    kinds: dict[str, Kind] = {}
    lines = tempfile.TemporaryFile("w+", dir=work)  # noqa: SIM115

    def rows() -> Iterator[np.ndarray]:
        image = 0
        while image < len(index):
            checks = next(looks)
            for check in checks:
                for kind, detail in check.findings.items():
                    before = kinds.get(kind, Kind(0, image, detail))
                    kinds[kind] = before._replace(images=before.images + 1)
                    name = os.fsdecode(index.names[image])
                    lines.write(json.dumps([name, kind, detail]) + "\n")
                image += 1
            sizes = [(c.file_bytes, c.height, c.width, _bits([*c.findings])) for c in checks]
            yield np.array(sizes, ROW)
            advance(len(checks))

    table = array_on_disk(work, ROW, rows())
    known = replace(
        index,
        heights=table["heights"],
        widths=table["widths"],
        file_bytes=table["file_bytes"],
    )
    return Verified(known, table["found"], kinds, lines)


def _pieces(index: Index, work: Path) -> Iterator[_Piece]:
    """Cut a split into pieces of one class each, so that a new image disturbs one class only."""
    classes = np.arange(len(index.classes) + 1, dtype=index.labels.dtype)
    bounds = np.searchsorted(index.labels, classes).tolist()
    for name, start, end in zip(index.classes, bounds[:-1], bounds[1:], strict=True):
        folder = work / Path(index.root).name / name
        for number, first in enumerate(range(start, end, PIECE)):
            names = index.names[first : min(first + PIECE, end)]
            yield _Piece(index.root, names, str(folder / f"{number:04d}.json"))


def _check_piece(piece: _Piece) -> list[ImageCheck]:
    known = _recall(piece.memory)
    checks = {}
    for name in map(os.fsdecode, piece.names):
        path = os.path.join(piece.root, name)
        try:
            stat = os.stat(path)
        except FileNotFoundError:
            checks[name] = ImageCheck(0, NO_TIME, 0, 0, {UNDECODABLE: "a link that leads nowhere"})
            continue
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
        file.write(json.dumps({FORMAT_OF_MEMORY: checks}))
    os.replace(f"{memory}.tmp", memory)
