"""Pictures as a trained network takes them, and what its classes are called."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from dali_pipeline.dataset.index import BadImage, Index
from dali_pipeline.loading.torchvision_loader import central_images
from dali_pipeline.sampling.crops import central_placement
from dali_pipeline.sampling.image_size import validation_side
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.recipe import Recipe

WNID = re.compile(r"n\d{8}")  # a class folder of ImageNet


def pictures(paths: Sequence[Path], recipe: Recipe) -> Iterator[torch.Tensor]:
    """Yield each picture as the run validates it: float32 (1, 3, side, side), normalised.

    Raises BadInput naming a file that is no picture.
    """
    names = np.array([os.fsencode(path.absolute()) for path in paths])
    index = Index("", (), names, np.zeros(len(paths), np.int32))
    side = validation_side(recipe)
    for image, path in enumerate(paths):
        ids = np.array([image])
        try:
            placement = central_placement(*index.sizes(ids), recipe.val_resize, side)
            yield central_images(index, ids, placement, side, recipe.antialias)
        except BadImage as error:
            reason = str(error.__cause__ or error)
            raise BadInput(f"cannot read {path} ({reason}): give files of pictures") from error


def class_names(classes: Sequence[str]) -> list[str]:
    """Return what to call the classes: their folders, ImageNet's 1,000 with their names."""
    if len(classes) == 1000 and all(map(WNID.fullmatch, classes)):
        from torchvision.models import ResNet50_Weights

        words = ResNet50_Weights.DEFAULT.meta["categories"]  # in the order of sorted wnids
        return [f"{wnid} {word}" for wnid, word in zip(classes, words, strict=True)]
    return list(classes)
