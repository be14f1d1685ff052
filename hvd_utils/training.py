"""The two loops: steps of synchronous SGD over k logical workers, and exact validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest

import horovod.torch as hvd
import torch
from torch import nn

from hvd_utils.agreement import Agreement
from hvd_utils.averaging import AveragedWeights
from hvd_utils.batch_norm import RunningAverages
from hvd_utils.compiling import uncompiled
from hvd_utils.failure import BadInput
from hvd_utils.guard import Guard
from hvd_utils.measures import Errors
from hvd_utils.optimizer import minibatch_loss, set_rate
from hvd_utils.precision import computing
from hvd_utils.random_modules import refuse_random_numbers, seed_random_modules
from hvd_utils.rank_files import COMPUTING, FINISHING, READING, WAITING
from hvd_utils.world import World

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


def nobody(step: int, doing: str) -> None:
    """Take no notice of where a process is."""


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int], float],
    batches: Batches,
    steps: range,
    *,
    passes: Sequence[range],
    workers: int,
    minibatch: int,
    seed: int,
    precision: str,
    label_smoothing: float = 0.0,
    world: World,
    agreement: Agreement,
    guard: Guard,
    averaged: AveragedWeights | None = None,
    at: Callable[[int, str], None] = nobody,
) -> Iterator[torch.Tensor]:
    """Make the given steps of minibatch SGD; yield after each, when all ranks hold the same state.

    What is yielded is a tensor on the device: the step's loss, a mean over the minibatch, and how
    many of its images were classified wrongly, both over all ``workers``. Each step runs this
    process's logical workers, one pass of ``passes`` after the other; their gradients accumulate,
    and Horovod sums them over the processes during the last backward pass. ``agreement`` makes one
    round a step, ``guard`` the updates, which ``averaged`` follows; ``at`` is told step and what is
    being done. On a GPU the host waits for nothing that is computed there.

    Raises NotFinite where the loss or the gradients are not finite, of which no update is made, and
    BadInput where several fused workers do not fit the memory or would share random numbers.
    """
    model.train()
    averages = RunningAverages(model, workers, world.size)
    dtype = next(model.parameters()).dtype
    try:
        for step in steps:
            set_rate(optimizer, schedule(step))
            agreement.ask()
            totals = torch.zeros(2, dtype=torch.float64, device=world.device)
            for fused in passes:
                at(step, READING)
                images, labels = next(batches)
                at(step, COMPUTING)
                with _for_workers(fused, step, seed, world.device):
                    with computing(precision, world.device):
                        logits = model(images.to(dtype))
                        loss = minibatch_loss(logits, labels, minibatch, label_smoothing)
                    with torch.no_grad():
                        totals[0] += loss
                        totals[1] += (logits.argmax(dim=1) != labels).sum()
                    averages.end_pass(len(fused))
                    if fused is passes[-1]:
                        averages.send(totals)
                    guard.scaled(loss).backward()
            at(step, WAITING)
            optimizer.synchronize()
            totals = averages.receive()
            agreement.settle()
            at(step, COMPUTING)
            guard.update(optimizer, step, totals[0])
            averages.update(keep=guard.failed)
            if averaged:
                averaged.update(step, guard.made)
            optimizer.zero_grad()
            at(step, FINISHING)
            yield totals
    except hvd.HorovodInternalError:
        averages.restore()  # whoever goes on from here needs those of the last whole step
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
    agreement: Agreement,
    at: Callable[[int, str], None] = nobody,
) -> Errors | None:
    """Return errors over the whole validation set, every image counted once; collective.

    Each process counts its own part, and the counts are summed once. ``rounds`` is the most batches
    that any process has; in each, ``agreement`` makes a round, and None is returned as soon as a
    flag of it is set: a validation that was broken off can be made again.
    """
    model.eval()
    dtype = next(model.parameters()).dtype
    counts = torch.zeros(3, dtype=torch.float64, device=world.device)
    for place, batch in zip_longest(range(rounds), batches):  # one with fewer batches joins in
        at(place, "validating")
        agreement.ask()
        if batch is not None:
            images, labels = batch
            with computing(precision, world.device), uncompiled():
                logits = model(images.to(dtype))
            ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
            hit = ranked == labels[:, None]
            top1, top5 = hit[:, :1].any(dim=1), hit.any(dim=1)
            counts[0] += (~top1).sum()
            counts[1] += (~top5).sum()
            counts[2] += len(labels)
        at(place, WAITING)
        agreement.settle()
        if agreement:
            return None
    wrong1, wrong5, images = world.sum(counts, name="validation.counts").tolist()
    if not images:
        raise BadInput("no validation image can be read: check the storage of the validation set")
    return Errors(100 * wrong1 / images, 100 * wrong5 / images, int(images))
