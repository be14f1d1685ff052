"""Batches for this process, from any step on: ``dali``, ``torchvision`` or ``synthetic``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch

from dali_pipeline.plan import Plan

# Images, float32 (batch, 3, resolution, resolution), normalised; labels, int64 (batch,)
Batch = tuple[torch.Tensor, torch.Tensor]


class Loader(Protocol):
    """What the training loop needs of an input pipeline. Batches are on the run's device."""

    def training(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """Yield the batches of these steps, one for each logical worker of this process in turn."""

    def validation(self) -> Iterator[Batch]:
        """Yield this process's share of the validation set once."""


def make_loader(kind: str, plan: Plan, *, device: torch.device, threads: int) -> Loader:
    """Return the loader named ``kind``, which carries out ``plan`` with ``threads`` CPU threads."""
    # Imported here: each library takes seconds to load, and a run needs one of them.
    if kind == "synthetic":
        from dali_pipeline.synthetic import SyntheticLoader

        return SyntheticLoader(plan, device)
    if kind == "torchvision":
        from dali_pipeline.torchvision_loader import TorchvisionLoader

        return TorchvisionLoader(plan, device, threads)
    from dali_pipeline.dali_loader import DaliLoader

    return DaliLoader(plan, device, threads)
