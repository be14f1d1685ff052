"""The state of training: the weights, the momentum, running statistics, averaged weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from hvd_utils.config.recipe import Recipe
from hvd_utils.horovod_backend.broadcast import broadcast_parameters
from hvd_utils.nn.batch_norm import batch_norms
from hvd_utils.nn.compile import is_compiled
from hvd_utils.nn.compile_turns import CompileTurns, share_caches
from hvd_utils.nn.ema import AveragedWeights
from hvd_utils.nn.memory_format import contiguous_view
from hvd_utils.training.nonfinite import Guard
from hvd_utils.training.optimizer import build_optimizer
from hvd_utils.training.running_statistics import RunningStatistics


@dataclass
class TrainState:
    """A model in training. After each step it is the same on every rank."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    guard: Guard
    averaged: AveragedWeights
    statistics: RunningStatistics
    turns: CompileTurns = field(default_factory=lambda: CompileTurns(None))

    @classmethod
    def build(
        cls, model: nn.Module, recipe: Recipe, passes: int, size: int, bucket_mb: float = 0
    ) -> TrainState:
        """Return ``model`` with the optimizer and the average that ``recipe`` says.

        ``passes`` is how many backward passes this process, one of ``size``, makes a step;
        gradients travel in buckets of ``bucket_mb``. See ``build_optimizer``.
        """
        return cls(
            model,
            build_optimizer(model, recipe, passes, bucket_mb),
            Guard(recipe.precision, recipe.workers, next(model.parameters()).device),
            AveragedWeights(model, recipe),
            RunningStatistics(model, recipe.workers, size),
            CompileTurns(share_caches() if is_compiled(model) else None),
        )

    def state_dict(self, step: int) -> dict[str, Any]:
        """Return the state after ``step`` updates: the tensors in use, not copies."""
        # PyTorch counts passes there, which depend on the number of processes.
        for norm in [*batch_norms(self.model), *batch_norms(self.averaged.validated)]:
            norm.num_batches_tracked.fill_(step)
        return {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "guard": self.guard.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``. Raises what PyTorch raises where it does not fit."""
        self.model.load_state_dict(state["model"])
        self.statistics.restart()
        self.averaged.load_state_dict(state.get("averaged", {}))
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, values in self.optimizer.state.items():  # in whichever memory format
            for name, value in values.items():
                if value.shape != parameter.shape:
                    raise ValueError(f"{name} of shape {tuple(value.shape)}")
                values[name] = torch.empty_like(parameter).copy_(value)
        self.guard.load_state_dict(state.get("guard", {}))

    def broadcast(self) -> None:
        """Begin with rank 0's weights on every rank; collective."""
        broadcast_parameters(
            {name: contiguous_view(value) for name, value in self.model.state_dict().items()}
        )
        self.statistics.restart()
        self.averaged.restart()
