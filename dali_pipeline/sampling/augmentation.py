"""What is done to a training image beside its crop and flip: pure functions of seed, epoch, image.

TrivialAugment's wide form (Müller and Hutter 2021, arXiv 2103.10158) and random erasing (Zhong et
al. 2017, arXiv 1708.04896), with torchvision's numbers. As for crops, all random numbers are an
image's own: they depend neither on the process nor on the order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dali_pipeline.sampling.crops import ATTEMPTS, Stream, Windows
from hvd_utils.config.recipe import Recipe

# By torchvision's names, with the largest magnitude; it is of either sign.
SIGNED = {
    "ShearX": 0.99, "ShearY": 0.99, "TranslateX": 32.0, "TranslateY": 32.0, "Rotate": 135.0,
    "Brightness": 0.99, "Color": 0.99, "Contrast": 0.99, "Sharpness": 0.99,
}  # fmt: skip
OPERATIONS = ("Identity", *SIGNED, "Posterize", "Solarize", "AutoContrast", "Equalize")
LEVELS = 31  # of magnitude

ERASED_AREA = (0.02, 0.33)  # share of the image
ERASED_RATIO = 3.3  # most elongated, long over short; torchvision's other end is 0.3

# Numbers of draws, behind those of crops and flips.
_OPERATION, _LEVEL, _SIGN, _WHETHER = range(32, 36)
_ERASED = 40  # and those that follow


def augments(recipe: Recipe) -> bool:
    """Return whether training images are augmented, one by one."""
    return recipe.augment != "none" or recipe.erase > 0


class Operations(NamedTuple):
    """What is done to each image: index in ``OPERATIONS``, magnitude; arrays (images,)."""

    kind: np.ndarray  # int32
    magnitude: np.ndarray  # float64, in the unit of its kind


def trivial_operations(stream: Stream) -> Operations:
    """Return one operation for each image, any with equal chance, of a magnitude likewise.

    Which are torchvision's, in ``TrivialAugmentWide``, whose pixels they are for.
    """
    kind = (stream.uniform(_OPERATION) * len(OPERATIONS)).astype(np.int32)
    level = (stream.uniform(_LEVEL) * LEVELS).astype(np.int32) / (LEVELS - 1)
    sign = np.where(stream.uniform(_SIGN) < 0.5, -1.0, 1.0)
    most = np.array([SIGNED.get(name, 0.0) for name in OPERATIONS])
    magnitude = np.select(
        [kind == OPERATIONS.index("Posterize"), kind == OPERATIONS.index("Solarize")],
        [np.rint(8 - 6 * level), 1 - level],  # bits that are left; threshold, 1 for white
        sign * level * most[kind],
    )
    return Operations(kind, magnitude)


def erased_windows(stream: Stream, share: float, side: int) -> Windows:
    """Return which window of each square image of ``side`` pixels is erased; mostly empty ones.

    ``share`` of the images have one, as torchvision's RandomErasing chooses it: its area uniform in
    ``ERASED_AREA``, the logarithm of height over width uniform, its place uniform. It is smaller
    than the image in both directions; where no attempt gives such a one, nothing is erased.
    """
    todo = np.flatnonzero(stream.uniform(_WHETHER) < share)
    windows = Windows(*np.zeros((4, len(stream)), np.int32))
    low, high = np.log([0.3, ERASED_RATIO])
    for draw in range(_ERASED, _ERASED + 2 * ATTEMPTS, 2):
        least, most = ERASED_AREA
        area = side**2 * (least + (most - least) * stream.uniform(draw, todo))
        ratio = np.exp(low + (high - low) * stream.uniform(draw + 1, todo))
        height = np.rint(np.sqrt(area * ratio)).astype(np.int32)
        width = np.rint(np.sqrt(area / ratio)).astype(np.int32)
        fits = (height < side) & (width < side)
        windows.height[todo[fits]], windows.width[todo[fits]] = height[fits], width[fits]
        todo = todo[~fits]
    for place, length, draw in ((0, 2, 0), (1, 3, 1)):
        room = side - windows[length] + 1
        windows[place][:] = stream.uniform(_ERASED + 2 * ATTEMPTS + draw) * room
    return windows
