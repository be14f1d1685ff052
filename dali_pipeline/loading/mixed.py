"""Mix the images of each logical worker, on the device, as planned: mixup and CutMix.

Behind whichever loader decodes, and behind the check of its first batches.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing

import numpy as np
import torch
from torch.nn import functional

from dali_pipeline.loading.interface import Batch, Loader
from dali_pipeline.loading.to_device import upload
from dali_pipeline.sampling.mixing import Mixing
from dali_pipeline.sampling.plan import Plan


class MixedLoader:
    """A loader whose training batches are mixed; their labels are shares of classes."""

    def __init__(self, loader: Loader, plan: Plan) -> None:
        self._loader = loader
        self._plan = plan

    def training(self, first_step: int, last_step: int) -> Generator[Batch]:
        """Yield training batches, with labels float32 (batch, classes); see ``Loader``."""
        places = self._plan.training_places(first_step, last_step)
        classes = len(self._plan.train.classes)
        with closing(self._loader.training(first_step, last_step)) as batches:
            for place, batch in zip(places, batches, strict=True):
                yield mix(batch, self._plan.mixing(*place), classes)

    def validation(self) -> Iterator[Batch]:
        """Yield validation batches; see ``Loader``."""
        return self._loader.validation()


def mix(batch: Batch, mixing: Mixing, classes: int) -> Batch:
    """Return the images of a pass mixed, and their labels as shares, float32 (batch, classes).

    The images of its workers alternate (``order.pass_images``), so the image before one of the same
    worker lies as many places before it as there are workers; before a worker's first is its last.
    """
    images, labels = batch
    workers = len(mixing.share)
    before = torch.cat((images[-workers:], images[:-workers]))
    blended = _by_image(np.where(mixing.pasted, 1.0, mixing.share), batch)
    mixed = torch.lerp(before, images, blended.view(-1, 1, 1, 1))  # at 1, exactly the image
    for worker in np.flatnonzero(mixing.pasted):
        top, left, height, width = (int(side[worker]) for side in mixing.boxes)
        rows, columns = slice(top, top + height), slice(left, left + width)
        mixed[worker::workers, :, rows, columns] = before[worker::workers, :, rows, columns]
    own = functional.one_hot(labels, classes).to(images.dtype)
    others = torch.cat((own[-workers:], own[:-workers]))
    return mixed, torch.lerp(others, own, _by_image(mixing.share, batch).view(-1, 1))


def _by_image(values: np.ndarray, batch: Batch) -> torch.Tensor:
    """Return each image's value of its worker's, float32 (batch,) on the batch's device."""
    images, _ = batch
    repeated = np.tile(values.astype(np.float32), len(images) // len(values))
    return upload(repeated, images.device)
