"""Exponential moving average of the weights, which validation uses.

After the update of step s (from 0), where it was made,

    averaged ← d · averaged + (1 - d) · weights,    d = min(decay, (1 + s) / (10 + s)),

for batch norms' running averages too. About the last 1 / (1 - decay) steps count; earlier on, the
last tenth of the steps so far, so that the first weights are soon forgotten (Polyak and Juditsky
1992; the start is that of TensorFlow's ``ExponentialMovingAverage``). Nothing is communicated: all
ranks hold the same weights, so they hold the same average.

PyTorch's ``AveragedModel`` computes the same, but waits for the GPU in every step.
"""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import nn

from hvd_utils.config.recipe import Recipe


def decay_at(step: int, decay: float) -> float:
    """Return the share of the average that the update of ``step`` keeps; ``decay`` at most."""
    return min(decay, (1 + step) / (10 + step))


class AveragedWeights:
    """The average of a model's weights as ``recipe.average`` says, beginning with the first ones.

    ``validated`` is the model whose errors count: one with the averaged weights, laid out in memory
    as the model and never trained or compiled; the model itself where none are kept.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self._model = model
        self._decay = recipe.average_decay
        self.validated = model
        if recipe.average == "ema":
            self.validated = copy.deepcopy(model).requires_grad_(False)

    @property
    def kept(self) -> bool:
        """Whether there are averaged weights."""
        return self.validated is not self._model

    @torch.no_grad()
    def update(self, step: int, made: torch.Tensor) -> None:
        """Average in the weights after ``step`` if ``made``, a truth value, is true.

        It is read on the device alone, so that the host need not wait for it.
        """
        if not self.kept:
            return
        averaged, weights = _tensors(self.validated), _tensors(self._model)
        share = (1 - decay_at(step, self._decay)) * made.to(averaged[0].dtype)
        if share.is_cuda:  # few launches, each for many tensors
            difference = torch._foreach_sub(weights, averaged)
            torch._foreach_mul_(difference, share)
            torch._foreach_add_(averaged, difference)
        else:  # one pass over memory
            torch._foreach_lerp_(averaged, weights, [share] * len(averaged))

    def restart(self) -> None:
        """Begin with the model's weights of the moment."""
        self.load_state_dict(self._model.state_dict())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the averaged weights by the model's names; empty where none are kept."""
        return self.validated.state_dict() if self.kept else {}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from ``state``."""
        if self.kept:
            self.validated.load_state_dict(state)


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    """Return what is averaged: parameters and buffers, but for what they count."""
    return [t for t in chain(model.parameters(), model.buffers()) if t.is_floating_point()]
