"""Made-up JPEGs with the sizes, qualities and bytes of ImageNet's.

A picture is noise whose amplitude falls as 1/f, as in photographs, over smooth colours and a few
sharp-edged shapes. Every picture is a pure function of its number.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dali_pipeline.preparation.parallel import parallel_map
from hvd_utils.cli.progress_bar import tqdm

VERSION = 1  # raised whenever the pictures change: it names their folder
CLASSES = 10

# Width and height in pixels, and how many of 100 images have them: ImageNet's mode, then its tail.
SIZES = {
    (500, 375): 52,
    (375, 500): 16,
    (500, 333): 9,
    (333, 500): 4,
    (400, 300): 3,
    (300, 225): 3,
    (250, 188): 2,
    (500, 500): 3,
    (500, 250): 2,
    (640, 480): 3,
    (800, 600): 2,
    (1024, 768): 1,
}
GRAYSCALE = 0.015  # share of the images
FULL_CHROMA = 0.1  # share of the images without chroma subsampling; the others have 4:2:0
QUALITIES = range(88, 96)
TEXTURE = (8, 54)  # standard deviation of the noise, of 255: a meadow has more than a sky


class Traits(NamedTuple):
    """What is decided of a picture before it is drawn; sides in pixels."""

    width: int
    height: int
    grayscale: bool
    quality: int
    subsampling: str
    texture: float


def traits(number: int) -> Traits:
    """Return what picture ``number`` is like."""
    random = np.random.default_rng([VERSION, number])
    shares = np.array([*SIZES.values()]) / 100
    width, height = [*SIZES][random.choice(len(SIZES), p=shares)]
    return Traits(
        width,
        height,
        bool(random.random() < GRAYSCALE),
        int(random.choice(QUALITIES)),
        "4:4:4" if random.random() < FULL_CHROMA else "4:2:0",
        float(random.uniform(*TEXTURE)),
    )


def picture(number: int) -> Image.Image:
    """Draw picture ``number``."""
    random = np.random.default_rng([VERSION, number, 1])
    like = traits(number)
    light = like.texture * _natural_noise(random, like.height, like.width)
    if like.grayscale:
        return Image.fromarray(_bytes(light + 128))
    pixels = _colours(random, like.width, like.height) + light[..., None]
    y, x = np.mgrid[: like.height, : like.width].astype(np.float32)
    for _ in range(6):  # what is in front of what: ellipses with an edge and a colour of their own
        centre_y, centre_x = random.uniform(0, 1, 2) * (like.height, like.width)
        radius_y, radius_x = random.uniform(0.05, 0.3, 2) * min(like.height, like.width)
        inside = ((y - centre_y) / radius_y) ** 2 + ((x - centre_x) / radius_x) ** 2 < 1
        pixels[inside] += random.normal(0, 30, 3).astype(np.float32)
    return Image.fromarray(_bytes(pixels))


def _natural_noise(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return noise (height, width) of variance 1 whose amplitude falls as one over frequency."""
    spectrum = np.fft.rfft2(random.standard_normal((height, width), dtype=np.float32))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf  # no change of the mean
    noise = np.fft.irfft2(spectrum / frequency, s=(height, width)).astype(np.float32)
    return noise / noise.std()


def _colours(random: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Return smooth colours (height, width, 3) with a little grain, as a sensor's."""
    coarse = Image.fromarray(random.integers(40, 216, (4, 5, 3), dtype=np.uint8))
    grain = random.normal(0, 4, ((height + 1) // 2, (width + 1) // 2, 3)).astype(np.float32)
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return smooth + grain.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels, 0, 255).astype(np.uint8)


def make_jpegs(folder: Path, images: int, processes: int) -> None:
    """Fill ``folder`` with ``train/`` and ``val/`` in class folders; what is there already stays.

    ``images`` are those of ``train/``. An interrupted call continues where it stopped.
    """
    validation = min(images, CLASSES)  # one of each class: a data set has some
    parts = {"train": range(images), "val": range(images, images + validation)}
    wanted = [
        (folder / split / f"class{place % CLASSES}" / f"{number:06d}.JPEG", number)
        for split, numbers in parts.items()
        for place, number in enumerate(numbers)
    ]
    missing = [(path, number) for path, number in wanted if not path.exists()]
    for path in {path.parent for path, _ in missing}:
        path.mkdir(parents=True, exist_ok=True)
    if missing:
        done = parallel_map(_write, missing, processes)
        for _ in tqdm(done, total=len(missing), unit="image", desc="drawing", disable=None):
            pass


def _write(task: Sequence) -> None:
    """Write one picture; under a temporary name and renamed, so that it is whole or absent."""
    path, number = task
    like = traits(number)
    temporary = path.with_suffix(".tmp")
    subsampling = {} if like.grayscale else {"subsampling": like.subsampling}
    picture(number).save(temporary, "JPEG", quality=like.quality, **subsampling)
    os.replace(temporary, path)
