"""The crops that a probe decodes: encoded images of the data set and windows as in training."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from dali_pipeline.dataset.index import Index
from dali_pipeline.sampling.plan import Plan
from hvd_utils.config.settings import Settings

IMAGES = 256  # as many as a GPU decodes at once in training


class Crops(NamedTuple):
    """Encoded images, and in each a window by its top left corner and shape, int32 (images, 2)."""

    encoded: list[np.ndarray]
    start: np.ndarray
    shape: np.ndarray

    def part(self, places: slice) -> Crops:
        """Return some of them, as ``places`` orders them."""
        start, shape = self.start[places], self.shape[places]
        return Crops(self.encoded[places], np.ascontiguousarray(start), np.ascontiguousarray(shape))

    def save(self, path: Path) -> None:
        """Write them to a file."""
        lengths = [len(image) for image in self.encoded]
        joined = np.concatenate(self.encoded)
        np.savez(path, joined=joined, lengths=lengths, start=self.start, shape=self.shape)


def load_crops(path: Path) -> Crops:
    """Return what ``save`` wrote."""
    with np.load(path) as file:
        encoded = np.split(file["joined"], np.cumsum(file["lengths"])[:-1])
        return Crops(encoded, file["start"], file["shape"])


def planned_crops(splits: tuple[Index, Index], settings: Settings) -> Crops:
    """Return the first crops of an epoch of one worker; images that cannot be read are left out."""
    from dali_pipeline.loading.dali.feed import Feed  # here: the probe's child does without it

    train, val = splits
    images = min(IMAGES, len(train))
    changes = {"workers": 1, "batch_per_worker": images, "on_bad_image": "skip"}
    plan = Plan(train, val, settings.model_copy(update=changes), [range(1)], 0, 1)
    feed = Feed(
        train,
        plan.bad_train,
        places=lambda: plan.training_places(0, 1),
        plan=lambda place: plan.training_batch(*place),
        group=1,
        on_gpu=False,
    )
    (crops,) = feed
    return Crops(*crops)
