"""Synthetic images in memory, to measure everything but the input."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import torch

from dali_pipeline.loading.interface import Batch
from dali_pipeline.loading.to_device import in_16_bits, upload
from dali_pipeline.sampling.plan import Plan

POOL = 4  # different batches of noise


class SyntheticLoader:
    """Noise on ``device``, the same for the same seed, step and worker; labels as planned."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self._plan = plan
        self._device = device
        self._pools: dict[int, torch.Tensor] = {}  # by side

    def training(self, first_step: int, last_step: int) -> Generator[Batch]:
        """Yield training batches; see ``Loader``."""
        settings = self._plan.settings
        for step, fused in self._plan.training_places(first_step, last_step):
            _, ids = self._plan.training_ids(step, fused)
            pool = self._pool(self._plan.training_side(step))
            noise = [pool[(step * settings.workers + worker) % POOL] for worker in fused]
            images = noise[0] if len(fused) == 1 else torch.stack(noise, dim=1).flatten(0, 1)
            yield _channels_first(images), self._labels(self._plan.train.labels[ids])

    def validation(self) -> Iterator[Batch]:
        """Yield validation batches; see ``Loader``."""
        noise = self._pool(self._plan.validation_side).flatten(0, 1)
        for ids in self._plan.validation_ids():
            yield _channels_first(noise[ids % len(noise)]), self._labels(self._plan.val.labels[ids])

    def _pool(self, side: int) -> torch.Tensor:
        """Return noise of this side, (POOL, n, side, side, 3)."""
        if side not in self._pools:
            settings = self._plan.settings
            noise = torch.Generator().manual_seed(settings.seed)
            shape = (POOL, settings.batch_per_worker, side, side, 3)
            half = self._device.type == "cuda" and in_16_bits(settings)  # as of images
            self._pools[side] = torch.randn(shape, generator=noise).to(
                self._device, torch.float16 if half else torch.float32
            )
        return self._pools[side]

    def _labels(self, labels: np.ndarray) -> torch.Tensor:
        return upload(labels.astype(np.int64), self._device)


def _channels_first(images: torch.Tensor) -> torch.Tensor:
    """Return a view (batch, 3, side, side), which is channels-last in memory as DALI's images."""
    return images.permute(0, 3, 1, 2)
