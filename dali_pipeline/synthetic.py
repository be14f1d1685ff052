"""Made-up images in memory: the speed of everything but the input."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from dali_pipeline.interface import Batch
from dali_pipeline.plan import Plan

POOL = 4  # different batches of noise


class SyntheticLoader:
    """Noise on ``device``, the same for the same seed, step and worker; labels as planned."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self._plan = plan
        self._device = device
        noise = torch.Generator().manual_seed(plan.settings.seed)
        largest = max(plan.settings.batch_per_worker, plan.settings.val_batch)
        shape = (largest, 3, plan.settings.resolution, plan.settings.resolution)
        self._pool = [torch.randn(shape, generator=noise).to(device) for _ in range(POOL)]

    def training(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """Yield training batches; see ``Loader``."""
        for step, worker in self._plan.training_places(first_step, last_step):
            _, ids = self._plan.training_ids(step, worker)
            yield self._batch(
                step * self._plan.settings.workers + worker, self._plan.train.labels[ids]
            )

    def validation(self) -> Iterator[Batch]:
        """Yield validation batches; see ``Loader``."""
        for number, ids in enumerate(self._plan.validation_ids()):
            yield self._batch(number, self._plan.val.labels[ids])

    def _batch(self, number: int, labels) -> Batch:
        images = self._pool[number % POOL][: len(labels)]
        return images, torch.from_numpy(labels).long().to(self._device)
