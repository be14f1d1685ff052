"""Batch norm's statistics computed anew before validation (section 5.2, Figure 4).

The running average of a large minibatch is updated rarely, so early in training it lags behind the
weights. Here mean and variance are those of N images under the weights of the moment. Each worker's
n images are normalised by their own statistics, as in training; which images share a worker follows
from the run's order, so the result does not depend on the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hvd_utils.config.recipe import Recipe
from hvd_utils.horovod_backend.flags import SharedFlags
from hvd_utils.horovod_backend.world import World
from hvd_utils.networks.freezing import is_frozen
from hvd_utils.nn.batch_norm import batch_norms
from hvd_utils.nn.compile import uncompiled
from hvd_utils.nn.dropout_seeds import seed_random_modules
from hvd_utils.nn.precision import as_input, computing
from hvd_utils.training.train_state import TrainState

Batch = tuple[torch.Tensor, torch.Tensor]


def recent_steps(recipe: Recipe, step: int) -> range:
    """Return the last steps before ``step`` that saw ``recompute_statistics`` images, or all."""
    count = -(-recipe.recompute_statistics // recipe.minibatch)
    return range(max(0, step - count), step)


@torch.no_grad()
def recompute_statistics(
    state: TrainState,
    training: Callable[[int, int], Generator[Batch]],
    step: int,
    *,
    recipe: Recipe,
    passes: Sequence[range],
    world: World,
    flags: SharedFlags,
    heartbeat: Callable[[int, str], None],
) -> None:
    """Set the statistics of what is validated as the recipe asks, after ``step``; collective.

    ``training`` gives this process's batches of the steps between two, a pass of ``passes`` after
    the other. Sums over processes are in float64. ``flags`` makes a round a step; where one is
    raised, the statistics stay as they were. Frozen norms keep theirs. Where the model itself is
    validated, its running averages go on from the new statistics, as after a checkpoint with them.
    """
    model = state.averaged.validated
    # Averaged weights are never trained, so all of their norms look frozen: ask the model's.
    pairs = list(zip(batch_norms(model), batch_norms(state.model), strict=True))
    norms = [norm for norm, trained in pairs if not is_frozen(trained)]
    steps = recent_steps(recipe, step)
    if not steps or not norms:
        return
    dtype = next(model.parameters()).dtype
    model.train()
    for norm, trained in pairs:
        norm.train(not is_frozen(trained))
    with closing(training(steps.start, steps.stop)) as batches, _moments(norms) as sums:
        for step in steps:
            heartbeat(step, "computing statistics anew")
            flags.send()
            for fused in passes:
                images, _ = next(batches)
                seed_random_modules(recipe.seed, step, fused.start)
                with computing(recipe.precision, world.device), uncompiled():
                    model(as_input(images, dtype, recipe.precision))
            flags.receive()
            if flags:
                return
    total = torch.from_numpy(world.sum(torch.cat(sums), name="batch_norm.recomputed"))
    for norm, (mean, square, count) in zip(norms, _parts(total, norms), strict=True):
        if not count:  # a norm that no image passes through
            continue
        mean, square = mean / count, square / count
        norm.running_mean.copy_(mean)
        norm.running_var.copy_((square - mean * mean) * (count / (count - 1)))  # unbiased, as usual
    if not state.averaged.kept:
        state.statistics.restart()


@contextmanager
def _moments(norms: Sequence[_BatchNorm]) -> Iterator[list[torch.Tensor]]:
    """Add up what reaches each norm: sums of values and of squares by channel, and how many.

    Meanwhile the norms leave their running statistics alone.
    """
    device = norms[0].running_mean.device
    sums = [
        torch.zeros(2 * norm.num_features + 1, dtype=torch.float64, device=device) for norm in norms
    ]
    momenta = [norm.momentum for norm in norms]

    def add(number: int) -> Callable:
        def before_forward(norm: nn.Module, inputs: tuple[torch.Tensor]) -> None:
            values = inputs[0].to(torch.promote_types(inputs[0].dtype, torch.float32))
            dims = [0, *range(2, values.ndim)]  # all but channels
            var, mean = torch.var_mean(values, dim=dims, correction=0)
            var, mean = var.double(), mean.double()
            count = values.numel() // values.shape[1]
            one = sums[number].new_ones(1)
            sums[number].add_(torch.cat([mean, var + mean * mean, one]), alpha=count)

        return before_forward

    hooks = [norm.register_forward_pre_hook(add(i)) for i, norm in enumerate(norms)]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield sums
    finally:
        for norm, momentum, hook in zip(norms, momenta, hooks, strict=True):
            norm.momentum = momentum
            hook.remove()


def _parts(
    total: torch.Tensor, norms: Sequence[_BatchNorm]
) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
    for norm, part in zip(norms, total.split([2 * n.num_features + 1 for n in norms]), strict=True):
        yield part[: norm.num_features], part[norm.num_features : -1], float(part[-1])
