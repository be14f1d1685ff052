"""Trace a loss or gradient that is not finite to its rank, worker and images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dali_pipeline.loading.interface import Loader
from dali_pipeline.sampling.plan import Plan
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.files import write_text
from hvd_utils.horovod_backend.world import World
from hvd_utils.networks.freezing import training_mode
from hvd_utils.nn.compile import uncompiled
from hvd_utils.nn.dropout_seeds import seed_random_modules
from hvd_utils.nn.precision import computing
from hvd_utils.training.nonfinite import NonfiniteError, all_finite
from hvd_utils.training.optimizer import minibatch_loss

SHOWN = 8  # image ids in the message; all are in the file
REPORT = "not-finite.json"


@dataclass(frozen=True)
class NonfiniteSource:
    """A logical worker whose own loss or gradient is not finite in a step."""

    rank: int
    host: str
    worker: int  # the first of its pass
    what: str
    images: list[int]  # ids


@contextmanager
def trace_nonfinite(
    model: nn.Module,
    loader: Loader,
    plan: Plan,
    schedule: Callable[[int], float],
    world: World,
    output: Path,
) -> Iterator[None]:
    """Turn NonfiniteError, which all ranks raise at once, into BadInput that names rank and images.

    The step's weights are still there and its images can be read again, so each rank makes its
    passes once more and checks each of them.
    """
    try:
        yield
    except NonfiniteError as error:
        rate = schedule(error.step)
        own = list(find_sources(model, loader, plan, error.step, world))
        sources = [culprit for part in world.gather(own) for culprit in part]
        if world.is_root:
            found = [vars(culprit) for culprit in sources]
            report = {"step": error.step + 1, "lr": rate, "sources": found}
            write_text(output / REPORT, json.dumps(report, indent=1) + "\n")
        raise BadInput(
            f"{_describe(sources)} at step {error.step + 1}, learning rate {rate:.4g}"
            f"{_where(sources)}: lower --reference-rate, lengthen --warmup-epochs, or check "
            "--scaling and --weight-decay; that update was not made, and the checkpoints saved "
            f"before are intact ({output / REPORT})"
        ) from None


def find_sources(
    model: nn.Module, loader: Loader, plan: Plan, step: int, world: World
) -> Iterator[NonfiniteSource]:
    """Yield this process's passes of ``step`` whose own loss or gradient is not finite."""
    training_mode(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    recipe, dtype = plan.settings, parameters[0].dtype
    batches = loader.training(step, step + 1)
    for fused, (images, labels) in zip(plan.passes, batches, strict=True):
        seed_random_modules(recipe.seed, step, fused.start)
        with computing(recipe.precision, world.device), uncompiled():
            logits = model(images.to(dtype))
            loss = minibatch_loss(logits, labels, recipe.minibatch, recipe.label_smoothing)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        if torch.isfinite(loss) and all_finite([g for g in gradients if g is not None]):
            continue
        what = "a gradient" if torch.isfinite(loss) else "the loss"
        ids = plan.training_batch(step, fused).ids.tolist()
        yield NonfiniteSource(world.rank, world.host, fused.start, f"{what} became not finite", ids)


def _describe(sources: list[NonfiniteSource]) -> str:
    if not sources:
        return "the sum of the gradients, each of them finite, became not finite"
    whats = sorted({culprit.what for culprit in sources})
    return whats[-1]  # the loss, if it is among them


def _where(sources: list[NonfiniteSource]) -> str:
    if not sources:
        return ""
    first = sources[0]
    shown = ", ".join(map(str, first.images[:SHOWN]))
    more = ", …" if len(first.images) > SHOWN else ""
    others = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
    return (
        f", on rank {first.rank} ({first.host}), logical worker {first.worker}, images {shown}"
        f"{more}{others}"
    )
