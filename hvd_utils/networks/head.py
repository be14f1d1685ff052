"""The head of a network: the layers that give the logits."""

from __future__ import annotations

from torch import nn


def head_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers that give the logits, by module: timm's classifiers, else the last layer.

    Every classification network of torchvision ends in one fully connected layer, or a 1×1
    convolution; timm's networks tell theirs, a distilled one has two.
    """
    classifier = getattr(model, "get_classifier", None)
    if callable(classifier):
        found = classifier()
        return list(found) if isinstance(found, tuple | list | nn.ModuleList) else [found]
    *_, last = (m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d))
    return [last]


def head_names(model: nn.Module) -> set[str]:
    """Return the names of the head's parameters and buffers."""
    head = head_layers(model)
    return {
        f"{name}.{inner}" if name else inner
        for name, module in model.named_modules()
        if any(module is layer for layer in head)
        for inner in module.state_dict()
    }
