"""Batch norm over logical workers (section 2.3): whose images normalise, and running averages.

A batch norm normalises by the n images of one logical worker, never by those of a process or of the
whole minibatch: n is a hyper-parameter of the loss. A worker that goes through the model by itself
needs plain ``nn.BatchNorm2d``; where several are fused in one pass, ``WorkerBatchNorm2d`` does it.

Running averages are kept as one update a step from all k workers,

    running ← 0.9 · running + 0.1 · (mean of the k workers' statistics).

Each worker's own average has the paper's momentum of 0.9 (section 5.1), and this is the mean of the
k averages that its workers would have kept; the paper does not say which of them it evaluated. So
after every step all processes hold the same averages, and any of them can save or evaluate.
"""

from __future__ import annotations

from collections.abc import Sequence

import horovod.torch as hvd
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from hvd_utils.failure import BadInput

MOMENTUM = 0.1  # weight of the new statistics: the paper's 0.9 (section 5.1) as PyTorch counts


class WorkerBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` for a batch of one or more logical workers, each normalised by itself.

    In training it takes (workers · n, channels, height, width) with image i of worker j at place
    i · workers + j, as ``order.pass_images`` lays them out. Elsewhere known as ghost batch norm
    (Hoffer et al. 2017).
    """

    batch_per_worker: int  # n

    @classmethod
    def like(cls, norm: nn.BatchNorm2d, batch_per_worker: int) -> WorkerBatchNorm2d:
        """Return the grouped form of ``norm``, with the same parameters and buffers."""
        grouped = cls(norm.num_features, norm.eps, norm.momentum)
        grouped.weight, grouped.bias = norm.weight, norm.bias
        grouped.running_mean, grouped.running_var = norm.running_mean, norm.running_var
        grouped.num_batches_tracked = norm.num_batches_tracked
        grouped.batch_per_worker = batch_per_worker
        return grouped.train(norm.training)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise each worker's images by their own statistics; update the running averages."""
        workers = len(images) // self.batch_per_worker
        if not self.training or workers == 1:
            return super().forward(images)
        # A compiler fuses plain operations, and with their neighbours; else one kernel does best.
        normalise = spelled_out if torch.compiler.is_compiling() else by_one_kernel
        normalised, mean, var = normalise(images, workers, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self.running_mean.lerp_(mean.mean(dim=0), self.momentum)
            self.running_var.lerp_(var.mean(dim=0), self.momentum)
        return normalised


Normalised = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def by_one_kernel(
    images: torch.Tensor, workers: int, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> Normalised:
    """Return normalised images, and each worker's mean and unbiased variance (workers, channels).

    Workers become channels of a view, so that one call of PyTorch's kernel normalises all of them.
    Images that are channels-last in memory are copied first.
    """
    batch, features, *size = images.shape
    channels = workers * features
    mean, var = weight.new_zeros(2, channels)
    normalised = functional.batch_norm(
        images.reshape(batch // workers, channels, *size),
        mean,
        var,
        weight.repeat(workers),
        bias.repeat(workers),
        training=True,
        momentum=1.0,  # leaves the statistics themselves in mean and var
        eps=eps,
    )
    shape = workers, features
    return normalised.reshape(images.shape), mean.view(shape), var.view(shape)


def spelled_out(
    images: torch.Tensor, workers: int, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> Normalised:
    """Return the same by plain operations on a view, whichever way the images lie in memory."""
    batch, features, *size = images.shape
    split = images.reshape(batch // workers, workers, features, *size).to(weight.dtype)
    dims, column = (0, 3, 4), (1, 1, features, 1, 1)
    var, mean = torch.var_mean(split, dim=dims, correction=0, keepdim=True)
    normalised = (split - mean) * torch.rsqrt(var + eps) * weight.view(column) + bias.view(column)
    count = split.numel() // (workers * features)
    shape = workers, features
    unbiased = (var * (count / (count - 1))).view(shape)
    return normalised.reshape(images.shape).to(images.dtype), mean.view(shape), unbiased


def normalise_by_worker(model: nn.Module, passes: Sequence[range], batch_per_worker: int) -> None:
    """Replace the model's batch norms in place if any pass fuses several workers.

    Raises BadInput for a batch norm of another kind, which would mix the workers' images.
    """
    if max(map(len, passes)) == 1:
        return
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d and child.affine and child.track_running_stats:
                setattr(parent, name, WorkerBatchNorm2d.like(child, batch_per_worker))
            elif isinstance(child, _BatchNorm) and not isinstance(child, WorkerBatchNorm2d):
                raise BadInput(
                    f"workers cannot be fused through {type(child).__name__} '{name}', only "
                    "through an affine BatchNorm2d: set --fuse-workers 1"
                )


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the model's batch norms, by module type."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


class RunningAverages:
    """The running averages of all of a model's batch norms, as one vector.

    The norms' buffers become views of one tensor. While a step's passes run it holds each pass's
    statistics in turn, which ``end_pass`` adds up; between steps it holds the averages. The sums
    over processes travel in one message, handed to Horovod before the last backward pass and hidden
    behind it: for ResNet-50 a five-hundredth of the gradients.
    """

    def __init__(self, model: nn.Module, workers: int, size: int) -> None:
        """Take over the model's buffers; ``workers`` is k, over all ``size`` processes."""
        norms = batch_norms(model)
        self._workers = workers
        self._size = size
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
        if self._size > 1:
            self._handle = hvd.allreduce_async_(
                self._message, op=hvd.Sum, name="batch_norm.statistics"
            )

    @torch.no_grad()
    def receive(self) -> torch.Tensor:
        """Return the sums of the totals over all processes."""
        if self._size > 1:
            hvd.synchronize(self._handle)
        return self._message[len(self._averages) :]

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
    def restore(self) -> None:
        """Put the averages back into the norms, also where a step was broken off."""
        self._buffers.copy_(self._averages)
        self._sum.zero_()
