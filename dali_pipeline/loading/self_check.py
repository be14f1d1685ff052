"""Compare the first batches of a launch with the reference loader.

An interpreter, library, driver or decoder may deliver wrong images without an error: so it was seen
with Python 3.14, whose runs trained on overwritten images and ended well. Here such a run ends in
its first minute. A batch is compared after the model has used it, so that memory that is used
again too early is found too.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch

from dali_pipeline.dataset.index import BadImage
from dali_pipeline.loading.interface import STD, Batch, Loader
from dali_pipeline.sampling.augmentation import Operations
from dali_pipeline.sampling.crops import Windows
from dali_pipeline.sampling.plan import Plan, TrainingBatch, ValidationBatch
from hvd_utils.cli.errors import BadInput

CHECKED_PASSES = 4  # first ones of training, and as many batches of the first validation
CHECKED_IMAGES = 5  # of each
LIMIT = 8.0  # mean difference of an image, in grey levels of 255: decoders differ by less than 1


Planned = TypeVar("Planned", TrainingBatch, ValidationBatch)


class CheckedLoader:
    """A loader whose first batches are compared; it raises BadInput where they are wrong.

    A few of the compared images may differ: decoders disagree about odd files.
    """

    def __init__(self, loader: Loader, plan: Plan) -> None:
        self._loader = loader
        self._plan = plan
        self._validation_checked = False

    def training(self, first_step: int, last_step: int) -> Generator[Batch]:
        """Yield training batches; see ``Loader``."""
        from dali_pipeline.loading.torchvision_loader import training_images

        places = itertools.islice(self._plan.training_places(first_step, last_step), CHECKED_PASSES)
        with closing(self._loader.training(first_step, last_step)) as batches:
            for (step, fused), batch in zip(places, batches, strict=False):
                yield batch
                try:
                    planned = _first_images(self._plan.training_batch(step, fused))
                    expected = training_images(self._plan, planned)
                except BadImage:  # the reference loader cannot read what this one can
                    continue
                self._compare(batch, expected, planned, f"step {step + 1}")
            batch = None  # its memory is the loader's again
            yield from batches

    def validation(self) -> Iterator[Batch]:
        """Yield validation batches; see ``Loader``."""
        from dali_pipeline.loading.torchvision_loader import validation_images

        batches = self._loader.validation()
        if self._validation_checked:
            yield from batches
            return
        self._validation_checked = True
        for ids, batch in zip(self._plan.validation_ids()[:CHECKED_PASSES], batches, strict=False):
            yield batch
            try:
                planned = _first_images(self._plan.validation_batch(ids))
                expected = validation_images(self._plan, planned)
            except BadImage:
                continue
            self._compare(batch, expected, planned, "validation")
        batch = None
        yield from batches

    def _compare(
        self,
        batch: Batch,
        expected: torch.Tensor,
        planned: TrainingBatch | ValidationBatch,
        where: str,
    ) -> None:
        images, labels = (part[: len(planned.ids)].cpu() for part in batch)
        if not torch.equal(labels, torch.from_numpy(planned.labels)):
            raise BadInput(
                f"{where}: the loader delivered labels {labels.tolist()}, planned were "
                f"{planned.labels.tolist()}: {self._remedy()}"
            )
        levels = torch.tensor(STD).view(3, 1, 1) * 255
        difference = ((images - expected) * levels).abs().mean(dim=(1, 2, 3))
        if not difference.median() <= LIMIT:  # a NaN is wrong too
            worst = int(planned.ids[difference.argmax()])
            index = self._plan.train if isinstance(planned, TrainingBatch) else self._plan.val
            raise BadInput(
                f"{where}: the loader delivered wrong images: they differ from the reference "
                f"loader's by {difference.median():.0f} of 255 grey levels on average (at most "
                f"{LIMIT:g} are allowed), most of all {index.whereabouts(worst)}: {self._remedy()}"
            )

    def _remedy(self) -> str:
        other = "" if self._plan.settings.decode == "cpu" else "--decode cpu, "
        return (
            f"a library is broken or unknown here (Python {platform.python_version()}, PyTorch "
            f"{torch.__version__}, NumPy {np.__version__}): use {other}the versions of "
            "constraints.txt, or --loader torchvision"
        )


def _first_images(batch: Planned) -> Planned:
    """Return the first few images of a planned batch."""
    few = slice(CHECKED_IMAGES)
    changes: dict[str, Any] = {"ids": batch.ids[few], "labels": batch.labels[few]}
    if isinstance(batch, TrainingBatch):
        changes["windows"] = Windows(*(part[few] for part in batch.windows))
        changes["flips"] = batch.flips[few]
        if batch.operations is not None:
            changes["operations"] = Operations(*(part[few] for part in batch.operations))
        if batch.erased is not None:
            changes["erased"] = Windows(*(part[few] for part in batch.erased))
    else:
        changes["placement"] = type(batch.placement)(*(part[few] for part in batch.placement))
    return replace(batch, **changes)
