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
    """Encoded images, and in each a window by its top left corner and shape, int32 (images, 2).

    ``largest`` are height and width in pixels that a GPU's decoder makes buffers for.
    """

    encoded: list[np.ndarray]
    start: np.ndarray
    shape: np.ndarray
    largest: tuple[int, int]

    def part(self, places: slice) -> Crops:
        """Return some of them, as ``places`` orders them."""
        start, shape = (np.ascontiguousarray(part[places]) for part in (self.start, self.shape))
        return Crops(self.encoded[places], start, shape, self.largest)

    def save(self, path: Path) -> None:
        """Write them to a file."""
        np.savez(
            path,
            joined=np.concatenate(self.encoded),
            lengths=[len(image) for image in self.encoded],
            start=self.start,
            shape=self.shape,
            largest=self.largest,
        )


def load_crops(path: Path) -> Crops:
    """Return what ``save`` wrote."""
    with np.load(path) as file:
        encoded = np.split(file["joined"], np.cumsum(file["lengths"])[:-1])
        height, width = file["largest"].tolist()
        return Crops(encoded, file["start"], file["shape"], (height, width))


def planned_crops(splits: tuple[Index, Index], settings: Settings) -> Crops:
    """Return the first crops of an epoch of one worker; images that cannot be read are left out."""
    # Imported here: the probe's child does without them.
    from dali_pipeline.loading.dali.feed import Feed
    from dali_pipeline.loading.dali.loader import largest_image

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
    ((encoded, start, shape),) = feed
    largest = largest_image(train, settings.largest_height, settings.largest_width)
    return Crops(encoded, start, shape, largest)
