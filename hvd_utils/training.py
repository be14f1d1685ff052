"""The two loops: steps of synchronous SGD over k logical workers, and exact validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from hvd_utils.batch_norm import batch_norms, set_running_average_weight
from hvd_utils.failure import BadInput
from hvd_utils.measures import Errors, Window
from hvd_utils.optimizer import minibatch_loss, set_rate
from hvd_utils.random_modules import refuse_random_numbers, seed_random_modules
from hvd_utils.world import World


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int], float],
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    steps: range,
    *,
    passes: Sequence[range],
    minibatch: int,
    seed: int,
    log_every: int,
    world: World,
) -> Iterator[Window]:
    """Make the given steps of minibatch SGD, yielding a report every ``log_every`` and at the end.

    Each step runs this process's logical workers, one pass of ``passes`` after the other; their
    gradients accumulate, and Horovod sums them over the processes during the last backward pass.
    Losses stay on the device and are summed over all ranks once a report.
    Raises BadInput at the report in which a step's loss was not finite, and where several fused
    workers do not fit the memory or would share random numbers.
    """
    model.train()
    norms, dtype = batch_norms(model), next(model.parameters()).dtype
    share = sum(map(len, passes))
    seen = torch.zeros(2, log_every, dtype=torch.float64, device=world.device)
    began, window_start = time.perf_counter(), steps.start
    for step in steps:
        set_rate(optimizer, schedule(step))
        for fused in passes:
            images, labels = next(batches)
            done = fused.start - passes[0].start
            set_running_average_weight(norms, done, len(fused), share)
            seed_random_modules(seed, step, fused.start)
            with refuse_random_numbers(len(fused), world.device), _naming_memory(len(fused)):
                logits = model(images.to(dtype))
                loss = minibatch_loss(logits, labels, minibatch)
                loss.backward()
            with torch.no_grad():
                seen[0, step - window_start] += loss
                seen[1, step - window_start] += (logits.argmax(dim=1) != labels).sum()
        optimizer.step()
        optimizer.zero_grad()
        done = step + 1
        if done % log_every == 0 or done == steps.stop:
            count = done - window_start
            totals = world.sum(seen[:, :count].flatten(), name="training.window")
            losses, wrong = totals[:count], totals[count:]
            _check_finite(losses, window_start, schedule)
            seconds = time.perf_counter() - began
            yield Window(
                step=done,
                steps=count,
                loss=float(losses.mean()),
                top1_error=100 * float(wrong.sum()) / (count * minibatch),
                lr=schedule(step),
                seconds=seconds,
                images_per_second=count * minibatch / seconds,
            )
            seen.zero_()
            began, window_start = time.perf_counter(), done


@contextmanager
def _naming_memory(fused: int) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        remedy = f"--fuse-workers {fused // 2}" if fused > 1 else "--batch-per-worker lower"
        raise BadInput(
            f"the GPU's memory does not hold a pass of {fused} workers: set {remedy}"
        ) from error


def _check_finite(losses, first: int, schedule: Callable[[int], float]) -> None:
    for place, loss in enumerate(losses):
        if not abs(loss) < float("inf"):
            step = first + place
            raise BadInput(
                f"the loss became {loss} at step {step + 1}, learning rate {schedule(step):.4g}: "
                "lower --reference-rate, lengthen --warmup-epochs, or check --scaling and "
                "--weight-decay; the checkpoints saved before are intact"
            )


@torch.no_grad()
def validate(
    model: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], world: World
) -> Errors:
    """Return errors over the whole validation set, every image counted once; collective.

    Each process counts its own part, of any length, and the counts are summed once.
    """
    model.eval()
    dtype = next(model.parameters()).dtype
    counts = torch.zeros(3, dtype=torch.float64, device=world.device)
    for images, labels in batches:
        logits = model(images.to(dtype))
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hit = ranked == labels[:, None]
        top1, top5 = hit[:, :1].any(dim=1), hit.any(dim=1)
        counts[0] += (~top1).sum()
        counts[1] += (~top5).sum()
        counts[2] += len(labels)
    wrong1, wrong5, images = world.sum(counts, name="validation.counts").tolist()
    return Errors(100 * wrong1 / images, 100 * wrong5 / images, int(images))
