"""Batch norm by logical worker (section 2.3): each normalises over its own n images.

A batch norm normalises by the n images of one logical worker, never by those of a process or of the
whole minibatch: n is a hyper-parameter of the loss. ``WorkerBatchNorm2d`` does it for one worker
and for several that are fused in one pass. How it is computed on a GPU: ``triton_batch_norm``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from hvd_utils.cli.errors import BadInput


class WorkerBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` for a batch of one or more logical workers, each normalised alone.

    In training it takes (workers · n, channels, height, width) with image i of worker j at place
    i · workers + j, as ``order.pass_images`` lays them out. Elsewhere known as ghost batch norm
    (Hoffer et al. 2017). It does not count its passes, which nothing here depends on: what a
    checkpoint says there is filled in by ``TrainState``.
    """

    batch_per_worker: int  # n
    fused_kernel: Callable | None = None  # a GPU's, set by ``use_fused_kernel``
    fewest_workers: int = 1  # of a pass that it computes where nothing compiles the model

    @classmethod
    def like(cls, norm: nn.BatchNorm2d, batch_per_worker: int) -> WorkerBatchNorm2d:
        """Return the grouped form of ``norm``, with the same parameters and buffers."""
        grouped = cls(norm.num_features, norm.eps, norm.momentum)
        grouped.weight, grouped.bias = norm.weight, norm.bias
        grouped.running_mean, grouped.running_var = norm.running_mean, norm.running_var
        grouped.num_batches_tracked = norm.num_batches_tracked
        grouped.batch_per_worker = batch_per_worker
        return grouped.train(norm.training)

    def forward(
        self, images: torch.Tensor, shortcut: torch.Tensor | None = None, relu: bool = False
    ) -> torch.Tensor:
        """Normalise each worker's images by their own statistics; update the running averages.

        In a residual block the norm does what follows too: add the ``shortcut``, and ``relu``.
        """
        workers = len(images) // self.batch_per_worker
        affine = self.weight, self.bias
        compiled = torch.compiler.is_compiling()
        if self.training and self.fused_kernel and (compiled or workers >= self.fewest_workers):
            output, mean, var = self.fused_kernel(
                images, workers, *affine, self.eps, shortcut, relu
            )
            self._update_averages(mean, var)
            return output
        if self.training and workers > 1:
            # A compiler fuses plain operations, also with their neighbours; else one kernel is best
            normalise = traceable_batch_norm if compiled else fused_batch_norm
            output, mean, var = normalise(images, workers, *affine, self.eps)
            self._update_averages(mean, var)
        else:
            averages = self.running_mean, self.running_var
            output = functional.batch_norm(
                images, *averages, *affine, self.training, self.momentum, self.eps
            )
        output = output if shortcut is None else output + shortcut
        return functional.relu(output, inplace=True) if relu else output

    @torch.no_grad()
    def _update_averages(self, mean: torch.Tensor, var: torch.Tensor) -> None:
        self.running_mean.lerp_(mean.mean(dim=0), self.momentum)
        self.running_var.lerp_(var.mean(dim=0), self.momentum)


Normalised = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def fused_batch_norm(
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


def traceable_batch_norm(
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
    """Replace the model's batch norms in place by those that normalise by worker.

    Raises BadInput for a batch norm of another kind if any pass fuses several workers, whose images
    it would mix.
    """
    from hvd_utils.nn.batch_norm_act import worker_forms  # which builds on this module

    forms = worker_forms()
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            form = forms.get(type(child))
            if form and child.affine and child.track_running_stats:
                setattr(parent, name, form.like(child, batch_per_worker))  # type: ignore[arg-type]
            elif isinstance(child, _BatchNorm) and not isinstance(child, WorkerBatchNorm2d):
                if max(map(len, passes)) == 1:
                    continue
                raise BadInput(
                    f"workers cannot be fused through {type(child).__name__} '{name}', only "
                    "through an affine BatchNorm2d: set --fuse-workers 1"
                )


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the model's batch norms that keep running averages, by module type."""
    norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
    return [norm for norm in norms if norm.track_running_stats]
