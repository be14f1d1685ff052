"""Start from given weights: they are matched by name and shape, and the head may be new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import Processes, some
from hvd_utils.config.settings import Settings
from hvd_utils.networks.head import head_names
from hvd_utils.weights.sources import digest, read_weights

COUNTER = "num_batches_tracked"  # old files have none, and a run counts its own

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Match:
    """What of a file fits a network, by name."""

    loaded: dict[str, torch.Tensor]
    new: list[str]  # of the network's head, with both shapes
    left_over: list[str]  # of the file


def start_from(settings: Settings, model: nn.Module, world: Processes) -> Settings:
    """Load the weights that --init names into ``model`` and return the settings with their digest.

    Collective: rank 0 reads them, tells in a line what was taken, and spreads them when the run
    begins. Raises BadInput where they are not there or of another network.
    """
    if settings.init is None:
        return settings
    checksum = None
    if world.is_root:
        weights = read_weights(settings.init)
        checksum = digest(weights)
        found = match(model, weights, settings.init, settings.model)
        model.load_state_dict(found.loaded, strict=False)
        print(describe(found, settings.init, checksum), flush=True)
    return settings.with_init(world.broadcast(checksum))


def match(
    model: nn.Module, weights: Weights, source: str, name: str, flag: str = "--init"
) -> Match:
    """Return what of ``weights``, which ``flag`` names, fits the model ``name``, by name and shape.

    The head is new as a whole where some of it does not fit: another number of classes. Raises
    BadInput where anything else does not, or is not finite.
    """
    wanted, head = model.state_dict(), head_names(model)
    unlike = {
        each: _shapes(value, weights.get(each))
        for each, value in wanted.items()
        if each.rpartition(".")[2] != COUNTER
        and (each not in weights or weights[each].shape != value.shape)
    }
    others = [f"{each} ({why})" for each, why in unlike.items() if each not in head]
    if others:
        raise BadInput(
            f"{flag} {source} is of another network than --model {name}: {len(others)} of "
            f"{len(wanted)} tensors do not fit, {some(others)}: set --model to match"
        )
    new = head if unlike else set()
    loaded = {each: weights[each] for each in wanted if each in weights and each not in new}
    for each, value in loaded.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise BadInput(f"{flag} {source} has weights that are not finite ({each})")
    told = [
        f"{each} ({unlike[each]})" if each in unlike else each for each in wanted if each in new
    ]
    return Match(loaded, told, [each for each in weights if each not in wanted])


def describe(found: Match, source: str, checksum: str) -> str:
    """Return the line that tells what was taken of the weights and what was not."""
    line = f"init: {len(found.loaded)} tensors from {source} ({checksum})"
    if found.new:
        line += f"; new: {some(found.new)}"
    if found.left_over:
        line += f"; left over there: {some(found.left_over)}"
    return line


def _shapes(here: torch.Tensor, there: torch.Tensor | None) -> str:
    if there is None:
        return "not there"
    return f"there {'×'.join(map(str, there.shape))}, here {'×'.join(map(str, here.shape))}"
