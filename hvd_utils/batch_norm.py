"""Batch norm's running averages over logical workers (section 2.3).

A batch norm normalises by the n images of one logical worker, which plain ``nn.BatchNorm2d`` does
when the worker's images go through the model by themselves. Its running averages are kept here as
one update a step from all k workers,

    running ← 0.9 · running + 0.1 · (mean of the k workers' statistics),

where the paper does not say how its workers' averages were brought together. It is linear, so each
process may average over its own workers and the processes be averaged later, weighted by their
numbers of workers, with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence

import horovod.torch as hvd
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

MOMENTUM = 0.1  # weight of the new statistics: the paper's 0.9 (section 5.1) as PyTorch counts


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the model's batch norms, by module type."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def running_average_weight(position: int, share: int) -> float:
    """Return the momentum for the ``position``-th of the ``share`` workers of this process.

    With these momenta PyTorch's successive updates leave each of the workers with the weight
    0.1 / share and the old average with 0.9, as one update by their mean would.
    """
    return (MOMENTUM / share) / (1 - (share - 1 - position) * MOMENTUM / share)


def set_running_average_weight(norms: Sequence[_BatchNorm], position: int, share: int) -> None:
    """Prepare the batch norms for the forward pass of the ``position``-th of ``share`` workers."""
    if share > 1:
        for norm in norms:
            norm.momentum = running_average_weight(position, share)


@torch.no_grad()
def collect_running_averages(
    norms: Sequence[_BatchNorm], share: int, workers: int, step: int
) -> None:
    """Give every process the running averages of all k ``workers``; collective.

    Called before they are used: for validation and for a checkpoint. ``share`` is how many of the
    workers this process carries. All averages travel in one float64 message. The counters of
    updates, which follow the number of passes, are set to ``step``.
    """
    if not norms:
        return
    buffers = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]
    for norm in norms:
        norm.num_batches_tracked.fill_(step)
    if hvd.size() == 1:
        return
    flat = torch.cat([buffer.double().cpu() for buffer in buffers]) * (share / workers)
    flat = hvd.allreduce(flat, op=hvd.Sum, name="batch_norm.running_averages")
    for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(mean)
