"""timm's batch norm that ends in an activation, by logical worker."""

from __future__ import annotations

import sys

import torch
from torch import nn

from hvd_utils.nn.batch_norm import WorkerBatchNorm2d


class WorkerBatchNormAct2d(WorkerBatchNorm2d):
    """timm's ``BatchNormAct2d`` for a batch of one or more logical workers; see its base."""

    drop: nn.Module
    act: nn.Module

    @classmethod
    def like(cls, norm: nn.BatchNorm2d, batch_per_worker: int) -> WorkerBatchNorm2d:
        """Return the grouped form of ``norm``, with the same parameters, buffers and activation."""
        grouped = super().like(norm, batch_per_worker)
        grouped.drop, grouped.act = norm.drop, norm.act
        return grouped.train(norm.training)

    def forward(
        self, images: torch.Tensor, shortcut: torch.Tensor | None = None, relu: bool = False
    ) -> torch.Tensor:
        """Normalise each worker's images by their own statistics, then activate."""
        return self.act(self.drop(super().forward(images, shortcut, relu)))


def worker_forms() -> dict[type, type[WorkerBatchNorm2d]]:
    """Return the batch norms that workers can be fused through, with their grouped forms.

    A subclass with a forward pass of its own may compute anything, so each is named.
    """
    forms: dict[type, type[WorkerBatchNorm2d]] = {nn.BatchNorm2d: WorkerBatchNorm2d}
    if "timm" in sys.modules:  # takes a second or two to import, and only its networks have them
        from timm.layers import BatchNormAct2d

        forms[BatchNormAct2d] = WorkerBatchNormAct2d
    return forms
