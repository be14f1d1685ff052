"""SGD as the paper runs it, or LARS, inside Horovod's allreduce (sections 2.1, 3 and 5.1)."""

from __future__ import annotations

import horovod.torch as hvd
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from hvd_utils.communication import buckets
from hvd_utils.compression import make_compression
from hvd_utils.layout import InMemoryOrder
from hvd_utils.recipe import Recipe
from hvd_utils.side_by_side import lay_side_by_side


def parameter_groups(
    model: nn.Module, weight_decay: float, *, decay_batch_norm: bool = False
) -> list[dict]:
    """Split parameters into those that decay and batch norms' γ and β, which do not (section 5.1).

    By module type: a test of names misses the batch norm of a downsampling shortcut.
    """
    if decay_batch_norm:
        return [{"params": list(model.parameters()), "weight_decay": weight_decay}]
    exempt = {
        parameter
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        for parameter in module.parameters(recurse=False)
    }
    decayed = [parameter for parameter in model.parameters() if parameter not in exempt]
    kept = [parameter for parameter in model.parameters() if parameter in exempt]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]


def make_sgd(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the paper's Nesterov SGD (section 5.1).

    PyTorch's momentum keeps the rate out of its buffer, u ← m·u + g and w ← w − η·u, so a changing
    rate needs no momentum correction (Remark 2). The update is one fused kernel, which can leave
    itself out; see ``guard``.
    """
    return torch.optim.SGD(
        parameter_groups(model, recipe.weight_decay, decay_batch_norm=recipe.decay_batch_norm),
        lr=recipe.reference_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        fused=True,
    )


def build_optimizer(
    model: nn.Module, recipe: Recipe, passes: int, bucket_mb: float = 0
) -> torch.optim.Optimizer:
    """Return the recipe's optimizer, whose gradients Horovod sums while backprop still runs (§4).

    ``passes`` is how many backward passes this process makes a step, not the same number on every
    process; the sums start in the last. The rate is set at every step by ``set_rate``.

    Gradients travel in buckets of ``bucket_mb``, or as Horovod fuses them if that is 0.
    """
    if recipe.optimizer == "lars":
        from hvd_utils.lars import make_lars  # imported where it is wanted: it takes seconds

        optimizer = make_lars(model, recipe)
    else:
        optimizer = make_sgd(model, recipe)
    sizes = [(p, p.numel() * p.element_size()) for p in model.parameters() if p.requires_grad]
    groups = buckets(sizes, bucket_mb) if bucket_mb else None
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    in_place = groups and on_cpu and hvd.size() > 1 and recipe.compression == "none"
    if in_place or recipe.compile == "cudagraphs":
        lay_side_by_side(groups or [[parameter] for parameter, _ in sizes])
    compression = make_compression(recipe.compression, scaled=recipe.precision == "fp16")
    optimizer = hvd.DistributedOptimizer(
        optimizer,
        named_parameters=model.named_parameters(),
        op=hvd.Sum,
        backward_passes_per_step=passes,
        compression=InMemoryOrder(compression),
        groups=groups,
    )
    if recipe.momentum:  # begins at 0, also where the first update is left out
        for parameter in model.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters for the next update."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def minibatch_loss(
    logits: torch.Tensor, labels: torch.Tensor, minibatch: int, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Return one worker's part of the loss: its sum over images, by the total kn (Remark 3).

    The gradients of all workers are then summed, not averaged, so shares may be uneven. ``logits``
    has shape (n, classes), ``labels`` (n,); the result is a scalar. ``label_smoothing`` is the
    share of each label that is spread evenly over all classes (Szegedy et al. 2016).
    """
    loss = functional.cross_entropy(
        logits, labels, reduction="sum", label_smoothing=label_smoothing
    )
    return loss / minibatch
