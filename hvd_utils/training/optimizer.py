"""The paper's SGD, or LARS, with Horovod's allreduce (sections 2.1, 3 and 5.1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from hvd_utils.config.recipe import Recipe
from hvd_utils.horovod_backend.distributed_optimizer import distribute
from hvd_utils.networks.head import head_layers
from hvd_utils.training.rate_in_momentum import rate_in_momentum

# What normalises, with γ and β of its own; the paper's networks have batch norms alone.
NORMS = (_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def parameter_groups(
    model: nn.Module, weight_decay: float, *, decay_batch_norm: bool = False
) -> list[dict]:
    """Split parameters into those that decay and batch norms' γ and β, which do not (section 5.1).

    By module type: a test of names misses the batch norm of a downsampling shortcut. Other layers
    that normalise are treated alike; frozen parameters are in neither.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if decay_batch_norm:
        return [{"params": trained, "weight_decay": weight_decay}]
    exempt = {
        parameter
        for module in model.modules()
        if isinstance(module, NORMS)
        for parameter in module.parameters(recurse=False)
    }
    decayed = [parameter for parameter in trained if parameter not in exempt]
    kept = [parameter for parameter in trained if parameter in exempt]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]


def split_head(groups: list[dict], model: nn.Module, head_rate: float) -> list[dict]:
    """Divide each group into body and head, whose rate is ``head_rate`` times the body's."""
    if head_rate == 1:
        return groups
    head = {parameter for layer in head_layers(model) for parameter in layer.parameters()}
    return [
        {
            **group,
            "params": [p for p in group["params"] if (p in head) == of_head],
            "rate_factor": head_rate if of_head else 1.0,
        }
        for group in groups
        for of_head in (False, True)
    ]


def make_sgd(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the paper's Nesterov SGD (section 5.1).

    PyTorch's momentum keeps the rate out of its buffer, u ← m·u + g and w ← w − η·u, so a changing
    rate needs no momentum correction (Remark 2). The update is one fused kernel, which can leave
    itself out; see ``guard``. ``recipe.momentum_form`` can ask for the other form, a control.
    """
    groups = parameter_groups(model, recipe.weight_decay, decay_batch_norm=recipe.decay_batch_norm)
    groups = split_head(groups, model, recipe.head_rate)
    options: dict[str, Any] = {
        "lr": recipe.reference_rate,
        "momentum": recipe.momentum,
        "nesterov": recipe.nesterov,
    }
    if recipe.momentum_form != "rate-outside":
        return rate_in_momentum(groups, recipe.momentum_form == "rate-inside", **options)
    return torch.optim.SGD(groups, fused=True, **options)


def build_optimizer(
    model: nn.Module, recipe: Recipe, passes: int, bucket_mb: float = 0
) -> torch.optim.Optimizer:
    """Return the recipe's optimizer, whose gradients Horovod sums while backprop still runs (§4).

    ``passes`` is how many backward passes this process makes a step, not the same number on every
    process; the sums start in the last. The rate is set at every step by ``set_rate``.

    Gradients travel in buckets of ``bucket_mb``, or as Horovod fuses them if that is 0.
    """
    if recipe.optimizer == "lars":
        from hvd_utils.training.lars import make_lars  # slow: it imports timm

        optimizer = make_lars(model, recipe)
    else:
        optimizer = make_sgd(model, recipe)
    distributed = distribute(optimizer, model, recipe, passes, bucket_mb)
    if recipe.momentum:  # begins at 0, also where the first update is left out
        for group in distributed.param_groups:
            for parameter in group["params"]:
                distributed.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return distributed


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters for the next update; the head's is a multiple."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_factor", 1.0)


def minibatch_loss(
    logits: torch.Tensor, labels: torch.Tensor, minibatch: int, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Return one worker's part of the loss: its sum over images, by the total kn (Remark 3).

    The gradients of all workers are then summed, not averaged, so shares may be uneven. ``logits``
    has shape (n, classes), ``labels`` (n,), or (n, classes) where images are mixed; the result is a
    scalar. ``label_smoothing`` is the share of each label that is spread evenly over all classes
    (Szegedy et al. 2016).
    """
    if labels.is_floating_point():  # shares of classes, in doubles where the model is
        labels = labels.to(torch.promote_types(labels.dtype, logits.dtype))
    loss = functional.cross_entropy(
        logits, labels, reduction="sum", label_smoothing=label_smoothing
    )
    return loss / minibatch
