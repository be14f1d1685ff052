"""Batch norm over logical workers (section 2.3): whose images normalise, and running averages.

A batch norm normalises by the n images of one logical worker, never by those of a process or of the
whole minibatch: n is a hyper-parameter of the loss. A worker that goes through the model by itself
needs plain ``nn.BatchNorm2d``; where several are fused in one pass, ``WorkerBatchNorm2d`` does it.

Running averages are kept as one update a step from all k workers,

    running ← 0.9 · running + 0.1 · (mean of the k workers' statistics).

Each worker's own average has the paper's momentum of 0.9 (section 5.1), and this is the mean of the
k averages that its workers would have kept; the paper does not say which of them it evaluated. The
update is linear, so each process may average over its own workers and the processes be averaged
later, weighted by their numbers of workers, with the same result.
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
    i · workers + j, as ``order.pass_images`` lays them out: workers are then channels of a view, so
    one call of PyTorch's kernel normalises all of them. Images that are channels-last in memory are
    copied first. Elsewhere known as ghost batch norm (Hoffer et al. 2017).
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
        channels = workers * self.num_features
        mean, var = self.running_mean.new_zeros(2, channels)
        normalised = functional.batch_norm(
            images.reshape(self.batch_per_worker, channels, *images.shape[2:]),
            mean,
            var,
            self.weight.repeat(workers),
            self.bias.repeat(workers),
            training=True,
            momentum=1.0,  # leaves the statistics themselves in mean and var
            eps=self.eps,
        )
        with torch.no_grad():
            self.running_mean.lerp_(mean.view(workers, -1).mean(dim=0), self.momentum)
            self.running_var.lerp_(var.view(workers, -1).mean(dim=0), self.momentum)
        return normalised.reshape(images.shape)


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


def running_average_weight(done: int, workers: int, share: int) -> float:
    """Return the momentum for a pass of ``workers``, after ``done`` of this process's ``share``.

    With these momenta successive updates leave each of the workers with the weight 0.1 / share and
    the old average with 0.9, as one update by their mean would.
    """
    later = (share - done - workers) * MOMENTUM / share
    return (workers * MOMENTUM / share) / (1 - later)


def set_running_average_weight(
    norms: Sequence[_BatchNorm], done: int, workers: int, share: int
) -> None:
    """Prepare the batch norms for one pass; see ``running_average_weight``."""
    for norm in norms:
        norm.momentum = running_average_weight(done, workers, share)


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
