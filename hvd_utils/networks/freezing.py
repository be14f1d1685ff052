"""Frozen parts of a network: they are neither trained nor do their batch norms follow the images.

A frozen batch norm, one whose γ and β are frozen, normalises by its running averages, in training
too, and leaves them as they are: so a frozen part computes the same in training and in validation,
as in detectors that are fine-tuned with small minibatches (He et al. 2017, Mask R-CNN).
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hvd_utils.cli.errors import BadInput


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze in place the parameters that a pattern names, or that are of a part it names.

    Patterns are a shell's, as ``layer[12]`` or ``*.bias``. Raises BadInput for one that matches
    nothing, and where nothing is left to train.
    """
    for pattern in patterns:
        named = [p for name, p in model.named_parameters() if _matches(name, pattern)]
        if not named:
            parts = ", ".join(name for name, _ in model.named_children())
            raise BadInput(f"--freeze {pattern} matches nothing: the model's parts are {parts}")
        for parameter in named:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise BadInput(f"--freeze {','.join(patterns)} leaves nothing to train: freeze less")


def _matches(name: str, pattern: str) -> bool:
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))


def is_frozen(norm: _BatchNorm) -> bool:
    """Return whether a batch norm's γ and β are there and frozen."""
    return norm.affine and not (norm.weight.requires_grad or norm.bias.requires_grad)


def training_mode(model: nn.Module) -> nn.Module:
    """Return the model in training mode, but for its frozen batch norms."""
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm) and is_frozen(module):
            module.eval()
    return model
