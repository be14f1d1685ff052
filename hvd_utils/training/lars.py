"""LARS, a rate for each layer, for minibatches beyond 8k (You et al. 2017, arXiv 1708.03888)."""

from __future__ import annotations

import torch
from torch import nn

from hvd_utils.cli.imports import quick_imports
from hvd_utils.config.recipe import Recipe
from hvd_utils.training.optimizer import split_head

with quick_imports():
    from timm.optim.lars import Lars


def lars_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Split parameters into weights and the rest: γ and β of batch norms, and biases.

    The rest neither decays nor is its rate adapted, as in the implementations of LARS's authors:
    its norm says little, and a γ that starts at 0 has none. Weights are adapted even if nothing
    decays.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in trained if parameter.ndim > 1]
    rest = [parameter for parameter in trained if parameter.ndim <= 1]
    return [
        {"params": weights, "weight_decay": weight_decay, "always_adapt": True},
        {"params": rest, "weight_decay": 0.0, "always_adapt": False},
    ]


def make_lars(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return LARS: SGD in which each layer's gradient has a length in proportion to its weights.

    With g a layer's gradient, w its weights, β weight decay and c the trust coefficient,
    λ = c·|w| / (|g| + β·|w|), u ← m·u + λ·(g + β·w) and w ← w − η·u: of Remark 2's forms the one
    that keeps the rate η out of the momentum's buffer, so a changing rate needs no correction. λ is
    in it, as it was when the gradient was taken. LARS's authors write the other form, with η in
    the buffer; under their schedule, which changes little from step to step, both are nearly one.
    """
    return Lars(
        split_head(lars_groups(model, recipe.weight_decay), model, recipe.head_rate),
        lr=recipe.reference_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        trust_coeff=recipe.trust_coefficient,
    )
