"""Running statistics of batch norm over all k logical workers (sections 2.3 and 5.1).

There is one update a step, from all k workers:

    running ← 0.9 · running + 0.1 · (mean of the k workers' statistics).

With the paper's momentum of 0.9 this is the mean of the k running averages that its workers kept;
the paper does not say which of them it evaluated. So after every step all processes hold the same
running statistics, and any of them can save or evaluate.
"""

from __future__ import annotations

import torch
from torch import nn

from hvd_utils.horovod_backend.async_ops import AsyncSum
from hvd_utils.networks.freezing import is_frozen
from hvd_utils.nn.batch_norm import batch_norms

MOMENTUM = 0.1  # weight of the new statistics: the paper's 0.9 (section 5.1) as PyTorch counts


class RunningStatistics:
    """The running averages of a model's batch norms, but for frozen ones, as one vector.

    The norms' buffers become views of one tensor. While a step's passes run it holds each pass's
    statistics in turn, which ``end_pass`` adds up; between steps it holds the averages. The sums
    over processes travel in one message, handed to Horovod before the last backward pass and hidden
    behind it: for ResNet-50 a five-hundredth of the gradients.

    There is one for a model's whole training: CUDA graphs hold the place of the buffers, and would
    be recorded again at another one.
    """

    def __init__(self, model: nn.Module, workers: int, size: int) -> None:
        """Take over the model's buffers; ``workers`` is k, over all ``size`` processes."""
        norms = [norm for norm in batch_norms(model) if not is_frozen(norm)]
        self._workers = workers
        self._exchange = AsyncSum(size, "batch_norm.statistics")
        self._dtype = next(model.parameters()).dtype
        buffers = [buffer for n in norms for buffer in (n.running_mean, n.running_var)]
        lengths = [len(buffer) for buffer in buffers]
        device = next(model.parameters()).device
        self._buffers = torch.cat([torch.empty(0, dtype=self._dtype, device=device), *buffers])
        views = iter(self._buffers.split(lengths))
        for norm in norms:
            norm.running_mean, norm.running_var = next(views), next(views)
            norm.momentum = 1.0  # a pass leaves its own statistics in the buffers
        self._averages = self._buffers.clone()
        self._sum = torch.zeros_like(self._buffers)

    @torch.no_grad()
    def end_pass(self, workers: int) -> None:
        """Add the statistics of a pass of ``workers`` to this step's mean over all k."""
        self._sum.add_(self._buffers, alpha=workers / self._workers)

    @torch.no_grad()
    def send(self, totals: torch.Tensor) -> None:
        """Start summing this process's statistics, and ``totals`` with them, over all processes."""
        self._message = torch.cat([self._sum, totals.to(self._dtype)])
        self._sum.zero_()
        self._exchange.begin(self._message)

    @torch.no_grad()
    def receive(self) -> torch.Tensor:
        """Return the sums of the totals over all processes."""
        return self._exchange.end()[len(self._averages) :]

    @torch.no_grad()
    def update(self, keep: torch.Tensor) -> None:
        """Update the averages by the mean of all k workers; ``keep``, a truth value, leaves them.

        It is read on the device alone, so that the host need not wait for it.
        """
        statistics = self._message[: len(self._averages)]
        updated = self._averages.lerp(statistics, MOMENTUM)
        torch.where(keep, self._averages, updated, out=self._averages)
        self.restore()

    @torch.no_grad()
    def restart(self) -> None:
        """Go on from what is in the norms: a state that was loaded into the model."""
        self._averages.copy_(self._buffers)
        self._sum.zero_()

    @torch.no_grad()
    def restore(self) -> None:
        """Put the averages back into the norms, also where a step was broken off."""
        self._buffers.copy_(self._averages)
        self._sum.zero_()
