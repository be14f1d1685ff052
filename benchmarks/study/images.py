"""A made-up image set with an error to lose: JPEG class folders of any size, from a seed.

A class is a random smooth template. An image shows it shifted, under a weaker template of another
class and noise: what is on top cannot be told from colours alone, and never quite for sure.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from hvd_utils.cli.argument_types import whole
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.parser import Parser
from hvd_utils.cli.run_main import run_main

SIDE = 8  # pixels
QUALITY = 90  # of the JPEG encoder
GRID = 4  # random colours along a template's side: few, so that it is smooth
SHIFT = 2  # pixels at most, in both directions
DISTRACTOR = (0.1, 0.48)  # share of the other class's template in an image
NOISE = 0.5  # standard deviation, where the templates' is 1
CONTRAST = 45  # of 255, what a standard deviation becomes
CHUNK = 1000  # images drawn at once


def templates(classes: int, seed: int) -> np.ndarray:
    """Return a template for each class: (classes, side, side, 3) with mean 0 and deviation 1.

    They are larger than an image by twice SHIFT, so that a shifted one has no edge.
    """
    random = np.random.default_rng([seed, 0])
    side = SIDE + 2 * SHIFT
    drawn = np.empty((classes, side, side, 3), np.float32)
    for template in drawn:
        for channel in range(3):
            coarse = Image.fromarray(random.normal(size=(GRID, GRID)).astype(np.float32))
            template[..., channel] = coarse.resize((side, side), Image.Resampling.BICUBIC)
    drawn -= drawn.mean(axis=(1, 2, 3), keepdims=True)
    return drawn / drawn.std(axis=(1, 2, 3), keepdims=True)


def draw(labels: np.ndarray, shapes: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return an image for each label, uint8 of shape (len(labels), SIDE, SIDE, 3)."""
    others = (labels + random.integers(1, len(shapes), len(labels))) % len(shapes)
    share = random.uniform(*DISTRACTOR, len(labels)).astype(np.float32)[:, None, None, None]
    pixels = (1 - share) * _shifted(shapes, labels, random)
    pixels += share * _shifted(shapes, others, random)
    pixels += NOISE * random.standard_normal(pixels.shape, np.float32)
    return np.clip(CONTRAST * pixels + 128, 0, 255).astype(np.uint8)


def _shifted(shapes: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return each label's template as seen through a window of SIDE at a random place."""
    top, left = random.integers(0, 2 * SHIFT + 1, (2, len(labels), 1, 1))
    rows, columns = top + np.arange(SIDE)[:, None], left + np.arange(SIDE)
    return shapes[labels[:, None, None], rows, columns]


class Size(NamedTuple):
    """How many classes, and images of all of them together."""

    classes: int = 100
    train: int = 16_384
    val: int = 8_192


def ensure_images(folder: Path, size: Size, seed: int = 1) -> Path:
    """Return ``folder`` with ``train/`` and ``val/``, writing them first if they are not there.

    Written beside and renamed, so that the folder is whole whenever it exists.
    """
    if not folder.exists():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(
                f"cannot make {folder}: {error.strerror}; give another folder"
            ) from error
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            whole = Path(temporary) / "images"
            _write(whole, size, seed)
            whole.rename(folder)
    return folder


def _write(folder: Path, size: Size, seed: int) -> None:
    shapes = templates(size.classes, seed)
    for number, (split, count) in enumerate((("train", size.train), ("val", size.val)), start=1):
        random = np.random.default_rng([seed, number])
        for label in range(size.classes):
            (folder / split / f"{label:03d}").mkdir(parents=True)
        for start in range(0, count, CHUNK):
            labels = np.arange(start, min(start + CHUNK, count)) % size.classes  # in turn
            for place, pixels in enumerate(draw(labels, shapes, random), start=start):
                path = folder / split / f"{place % size.classes:03d}" / f"{place:06d}.jpg"
                Image.fromarray(pixels).save(path, quality=QUALITY)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the images that the study uses, or others of the kind."""
    parser = Parser(prog="python -m benchmarks.study.images", description=__doc__)
    parser.add_argument("folder", type=Path)
    for name, default in Size()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=default, help="(default: %(default)s)")
    parser.add_argument("--seed", type=whole, default=1, help="of the templates and all else")
    options = parser.parse_args(arguments)
    if options.folder.exists():
        raise BadInput(f"{options.folder} exists already: remove it, or name another")
    if not 2 <= options.classes <= min(options.train, options.val):
        raise BadInput(f"--classes {options.classes}: at least 2, and an image of each")
    size = Size(options.classes, options.train, options.val)
    ensure_images(options.folder, size, options.seed)


if __name__ == "__main__":
    run_main(main)
