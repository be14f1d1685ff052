"""The two loops: synchronous SGD over k logical workers, and exact validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest

import numpy as np
import torch
from torch import nn

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.recipe import Recipe
from hvd_utils.faults.heartbeat import COMPILING, COMPUTING, FINISHING, READING, WAITING
from hvd_utils.horovod_backend.async_ops import RankLost
from hvd_utils.horovod_backend.flags import SharedFlags
from hvd_utils.horovod_backend.world import World
from hvd_utils.networks.freezing import training_mode
from hvd_utils.nn.compile import uncompiled, unsearched
from hvd_utils.nn.dropout_seeds import refuse_random_numbers, seed_random_modules
from hvd_utils.nn.precision import as_input, computing
from hvd_utils.training.metrics import Errors
from hvd_utils.training.optimizer import minibatch_loss, set_rate
from hvd_utils.training.train_state import TrainState

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


def no_heartbeat(step: int, doing: str) -> None:
    """Tell nobody where this process stands."""


def train(
    state: TrainState,
    schedule: Callable[[int], float],
    batches: Batches,
    steps: range,
    *,
    recipe: Recipe,
    passes: Sequence[range],
    world: World,
    flags: SharedFlags,
    heartbeat: Callable[[int, str], None] = no_heartbeat,
) -> Iterator[torch.Tensor]:
    """Make the given steps of minibatch SGD; yield after each, when all ranks hold the same state.

    Each step runs this process's logical workers, one pass of ``passes`` after the other. Their
    gradients accumulate; Horovod sums them over the processes during the last backward pass. What
    is yielded is a tensor on the device: the step's loss, a mean over the minibatch, and how many
    of its images were classified wrongly, both over all workers. A mixed image has the class of its
    larger part.

    ``schedule`` gives the learning rate of a step. ``flags`` makes one round a step. ``heartbeat``
    is told the step and what is being done. On a GPU the host does not wait for any result.

    Raises NonfiniteError where the loss or the gradients are not finite; no update is made of them.
    Raises BadInput where several fused workers do not fit the memory or would share random numbers.
    """
    model, statistics = training_mode(state.model), state.statistics
    dtype = next(model.parameters()).dtype
    try:
        for step in steps:
            set_rate(state.optimizer, schedule(step))
            flags.send()
            totals = torch.zeros(2, dtype=torch.float64, device=world.device)
            for fused in passes:
                heartbeat(step, READING)
                images, labels = next(batches)
                new = state.turns.is_new(images.shape)
                heartbeat(step, COMPILING if new else COMPUTING)
                with (
                    state.turns.turn(images.shape),
                    _for_workers(fused, step, recipe.seed, world.device),
                ):
                    with computing(recipe.precision, world.device):
                        logits = model(as_input(images, dtype, recipe.precision))
                        loss = minibatch_loss(
                            logits, labels, recipe.minibatch, recipe.label_smoothing
                        )
                    with torch.no_grad():
                        totals[0] += loss
                        classes = labels.argmax(dim=1) if labels.ndim > 1 else labels
                        totals[1] += (logits.argmax(dim=1) != classes).sum()
                    statistics.end_pass(len(fused))
                    if fused is passes[-1]:
                        statistics.send(totals)
                    state.guard.scaled(loss).backward()
            heartbeat(step, WAITING)
            state.optimizer.synchronize()
            totals = statistics.receive()
            flags.receive()
            heartbeat(step, COMPUTING)
            state.guard.update(state.optimizer, step, totals[0])
            statistics.update(keep=state.guard.failed)
            state.averaged.update(step, state.guard.made)
            state.optimizer.zero_grad()
            heartbeat(step, FINISHING)
            yield totals
    except RankLost:
        statistics.restore()  # a new world goes on from the statistics of the last whole step
        raise


@contextmanager
def _for_workers(fused: range, step: int, seed: int, device: torch.device) -> Iterator[None]:
    """Give a pass its own random numbers; name the remedy where it cannot be made."""
    seed_random_modules(seed, step, fused.start)
    try:
        with refuse_random_numbers(len(fused), device):
            yield
    except torch.OutOfMemoryError as error:
        remedy = (
            f"set --fuse-workers {len(fused) // 2}"
            if len(fused) > 1
            else "lower --batch-per-worker"
        )
        raise BadInput(
            f"the GPU's memory does not hold a pass of {len(fused)} workers: {remedy}"
        ) from error


@torch.no_grad()
def validate(
    model: nn.Module,
    batches: Batches,
    rounds: int,
    *,
    precision: str,
    world: World,
    flags: SharedFlags,
    classes: np.ndarray | None = None,
    heartbeat: Callable[[int, str], None] = no_heartbeat,
) -> Errors | None:
    """Return errors over the whole validation set, every image counted once; collective.

    ``classes`` are those of the model's that the labels count; None: all (section 5.3).

    Each process counts its own part, and the counts are summed once. ``rounds`` is the most batches
    that any process has. In each, ``flags`` makes a round; None is returned as soon as a flag is
    raised, since a validation that was broken off can be made again.
    """
    model.eval()
    dtype = next(model.parameters()).dtype
    counts = torch.zeros(3, dtype=torch.float64, device=world.device)
    only = None if classes is None else torch.as_tensor(classes, device=world.device)
    for place, batch in zip_longest(range(rounds), batches):  # one with fewer batches joins in
        heartbeat(place, "validating")
        flags.send()
        if batch is not None:
            images, labels = batch
            with computing(precision, world.device), uncompiled(), unsearched():
                logits = model(as_input(images, dtype, precision))
            if only is not None:
                logits = logits[:, only]
            ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
            hit = ranked == labels[:, None]
            top1, top5 = hit[:, :1].any(dim=1), hit.any(dim=1)
            counts[0] += (~top1).sum()
            counts[1] += (~top5).sum()
            counts[2] += len(labels)
        heartbeat(place, WAITING)
        flags.receive()
        if flags:
            return None
    wrong1, wrong5, images = world.sum(counts, name="validation.counts").tolist()
    if not images:
        raise BadInput("no validation image can be read: check the storage of the validation set")
    return Errors(100 * wrong1 / images, 100 * wrong5 / images, int(images))
