"""Crops and flips of each image: pure functions of seed, epoch and image (section 5.1).

The training crop has the distribution of torchvision's RandomResizedCrop. Its random numbers come
from a counter-based generator keyed by (seed, epoch, image), so that a crop depends on nothing
else: not on the worker, not on the order, not on a state to save. All functions take arrays.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dali_pipeline.sampling.bijection import mix

ATTEMPTS = 10  # as in torchvision, before it falls back to a central crop


class Windows(NamedTuple):
    """Crop windows in pixels of the stored image: int32 arrays of shape (images,)."""

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray


class Stream:
    """Uniform random numbers for each of many images: draw ``i`` of image ``x`` in epoch ``e``.

    SplitMix64 as a counter-based generator: its state is the hashed key plus a multiple of the
    draw's number, so any draw is computed without those before it.
    """

    def __init__(self, seed: int, epochs: np.ndarray, ids: np.ndarray) -> None:
        key: np.ndarray = np.array(seed, np.uint64)
        for part in (epochs, ids):
            key = mix(key + np.asarray(part, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95))
        self._key = mix(key)

    def __len__(self) -> int:
        """Return how many images have numbers."""
        return len(self._key)

    def uniform(self, draw: int, where: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return draw number ``draw``, in [0, 1), of the images chosen by ``where``."""
        step = np.uint64((draw + 1) * 0x9E3779B97F4A7C15 % 2**64)
        return (mix(self._key[where] + step) >> np.uint64(11)) * 2.0**-53


def training_windows(
    stream: Stream, heights: np.ndarray, widths: np.ndarray, min_area: float, max_ratio: float
) -> Windows:
    """Return scale and aspect-ratio crops of images of the given sizes in pixels (section 5.1).

    The area is uniform in [min_area, 1] of the image's, the logarithm of width over height uniform
    in ±log(max_ratio), the position uniform among those that fit. An image that no attempt fits is
    cropped centrally to the nearest allowed ratio, as torchvision does.
    """
    heights, widths = np.asarray(heights, np.int32), np.asarray(widths, np.int32)
    height, width = _central_crop(heights, widths, max_ratio)
    random_place = np.zeros(len(heights), dtype=bool)
    for attempt in range(ATTEMPTS):
        todo = np.flatnonzero(~random_place)
        if not len(todo):
            break
        area = heights[todo].astype(np.float64) * widths[todo]
        area *= min_area + (1 - min_area) * stream.uniform(2 * attempt, todo)
        ratio = np.exp(np.log(max_ratio) * (2 * stream.uniform(2 * attempt + 1, todo) - 1))
        w = np.rint(np.sqrt(area * ratio)).astype(np.int32)
        h = np.rint(np.sqrt(area / ratio)).astype(np.int32)
        fits = (w > 0) & (w <= widths[todo]) & (h > 0) & (h <= heights[todo])
        height[todo[fits]], width[todo[fits]] = h[fits], w[fits]
        random_place[todo[fits]] = True
    top = _place(heights - height, random_place, stream.uniform(2 * ATTEMPTS))
    left = _place(widths - width, random_place, stream.uniform(2 * ATTEMPTS + 1))
    return Windows(top, left, height, width)


def _place(room: np.ndarray, random_place: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Return offsets into ``room`` spare pixels: uniform where ``random_place``, else central."""
    return np.where(random_place, (uniform * (room + 1)).astype(np.int32), room // 2)


def _central_crop(
    heights: np.ndarray, widths: np.ndarray, max_ratio: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return heights and widths of the largest windows with a ratio between 1/max and max."""
    ratio = widths / heights
    height = np.where(ratio < 1 / max_ratio, np.rint(widths * max_ratio), heights)
    width = np.where(ratio > max_ratio, np.rint(heights * max_ratio), widths)
    return height.astype(np.int32), width.astype(np.int32)


def flips(stream: Stream) -> np.ndarray:
    """Return whether each image is mirrored, int32 0 or 1 with equal chance (section 5.1)."""
    return (stream.uniform(2 * ATTEMPTS + 2) < 0.5).astype(np.int32)


class Placement(NamedTuple):
    """How validation images are resized, then cropped: int32 (images, 2), y before x."""

    size: np.ndarray
    corner: np.ndarray


def central_placement(
    heights: np.ndarray, widths: np.ndarray, shorter_side: int, crop: int
) -> Placement:
    """Return sizes with the given shorter side, and the corner of the central crop (section 5.1).

    Pixel for pixel as torchvision's Resize and CenterCrop, whose roundings differ.
    """
    sides = np.stack([heights, widths], axis=1).astype(np.int64)
    size = (shorter_side * sides / sides.min(axis=1, keepdims=True)).astype(np.int32)
    corner = np.rint((size - crop) / 2).astype(np.int32)
    return Placement(size, corner)
