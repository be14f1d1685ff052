"""Published weights of timm and torchvision, from their caches or by the network."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from hvd_utils.cli.errors import BadInput

Weights = dict[str, torch.Tensor]


def from_hub(source: str) -> Weights:
    """Return the weights that ``timm/NAME`` or ``torchvision/NAME`` names.

    NAME is as the library has it, with a tag behind a dot where there are several; without one it
    is the library's default. Raises BadInput where there are no such weights, or no network.
    """
    library, _, name = source.partition("/")
    try:
        return HUB[library](name)
    except BadInput:
        raise
    except Exception as error:  # of many libraries below: HTTP, caches, hashes
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise BadInput(
            f"cannot get the weights {source} ({reason}): fetch them once where there is a "
            "network, which keeps them in a cache, or download a file and give that"
        ) from error


def _timm(name: str) -> Weights:
    import timm

    if not timm.is_model(name.partition(".")[0]) or not timm.list_pretrained(name + "*"):
        raise BadInput(f"no weights timm/{name}: timm.list_pretrained() tells the names")
    for talks in ("timm", "huggingface_hub"):  # of each attempt where there is no network
        logging.getLogger(talks).setLevel(logging.ERROR)
    return timm.create_model(name, pretrained=True).state_dict()


def _torchvision(name: str) -> Weights:
    from torchvision import models

    name, _, tag = name.partition(".")
    try:
        members = models.get_model_weights(name)
        chosen = members[tag] if tag else members.DEFAULT
    except (ValueError, KeyError, AttributeError) as error:
        raise BadInput(
            f"no weights torchvision/{name}{'.' * bool(tag)}{tag}: give a network of torchvision, "
            "as torchvision/resnet50 or torchvision/resnet50.IMAGENET1K_V1"
        ) from error
    return chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)


HUB: dict[str, Callable[[str], Weights]] = {"timm": _timm, "torchvision": _torchvision}
HUBS = tuple(f"{library}/" for library in HUB)
