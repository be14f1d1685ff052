"""Augment the pixels of one image as planned, by torchvision's transforms."""

from __future__ import annotations

import torch
from torchvision.transforms.v2 import InterpolationMode, TrivialAugmentWide

from dali_pipeline.sampling.augmentation import OPERATIONS
from dali_pipeline.sampling.crops import Windows

BILINEAR = InterpolationMode.BILINEAR
TRIVIAL = TrivialAugmentWide(interpolation=BILINEAR)


def operate(pixels: torch.Tensor, kind: int, magnitude: float) -> torch.Tensor:
    """Return uint8 (3, height, width) pixels after one of ``OPERATIONS``."""
    return TRIVIAL._apply_image_or_video_transform(
        pixels, OPERATIONS[kind], float(magnitude), BILINEAR, TRIVIAL._fill
    )


def erase(pixels: torch.Tensor, windows: Windows, image: int) -> None:
    """Erase the window of an image in its normalised pixels (height, width, 3): to the mean."""
    top, left, height, width = (int(side[image]) for side in windows)
    pixels[top : top + height, left : left + width] = 0
