"""Where a run goes on: from a checkpoint, or from what surviving processes still hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import torch
from torch import nn

from hvd_utils import checkpoint
from hvd_utils.averaging import AveragedWeights
from hvd_utils.batch_norm import batch_norms
from hvd_utils.failure import BadInput
from hvd_utils.guard import Guard
from hvd_utils.layout import in_memory_order
from hvd_utils.progress import Progress
from hvd_utils.settings import Settings
from hvd_utils.world import World

State = Mapping[str, Any]


def whole_state(
    settings: Settings,
    progress: Progress,
    model: nn.Module,
    averaged: AveragedWeights,
    optimizer: torch.optim.Optimizer,
    guard: Guard,
    data_facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Return all that the rest of a run depends on; the number of processes is not among it.

    Between two steps it is the same on every rank. Its tensors are those in use, not copies.
    """
    # They would count passes, not updates.
    for norm in [*batch_norms(model), *batch_norms(averaged.validated)]:
        norm.num_batches_tracked.fill_(progress.step)
    return {
        "step": progress.step,
        "progress": vars(progress) | {"top1_errors": list(progress.top1_errors)},
        "experiment": settings.experiment(),
        **data_facts,
        "model": model.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
        "guard": guard.state_dict(),
    }


def take_over(
    state: State | None,
    model: nn.Module,
    averaged: AveragedWeights,
    optimizer: torch.optim.Optimizer,
    guard: Guard,
) -> Progress:
    """Bring model, average and optimizer to ``state``, or all ranks to rank 0's first weights.

    Collective. Returns how far the run is.
    """
    if state is None:
        first = {name: in_memory_order(value) for name, value in model.state_dict().items()}
        hvd.broadcast_parameters(first, root_rank=0)
        averaged.restart()
        return Progress()
    model.load_state_dict(state["model"])
    averaged.load_state_dict(state.get("averaged", {}))
    optimizer.load_state_dict(state["optimizer"])
    for parameter, values in optimizer.state.items():  # whichever layout they were saved in
        for name, value in values.items():
            if value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(value)
    guard.load_state_dict(state.get("guard", {}))
    return Progress(**state["progress"])


def checkpointed_state(
    settings: Settings, world: World, output: Path, data_facts: Mapping[str, Any]
) -> tuple[State | None, list[str]]:
    """Return the state that --resume asks for, if any, and lines to show about it; collective.

    Rank 0 finds and reads it and tells the others. Raises BadInput if it is damaged or of another
    run.
    """
    state, notes = None, []
    if world.is_root:
        path, state, notes = _find(settings.resume, output)
        if state is not None:
            checkpoint.check_model(state, path, settings.model, data_facts["num_classes"])
            checkpoint.check_data(state, path, data_facts)
            checkpoint.check_experiment(state, path, settings.experiment())
    return world.broadcast(state), notes


def _find(resume: str, output: Path) -> tuple[Path | None, State | None, list[str]]:
    """Return the checkpoint to go on from, its content, and lines to show about the choice."""
    if resume == "never":
        if checkpoint.list_checkpoints(output):
            raise BadInput(
                f"{output} already holds a run: leave out --resume never to go on with it, "
                "or choose another --output"
            )
        return None, None, []
    if resume == "auto":
        path, state, damaged = checkpoint.newest_valid(output)
    else:
        path, damaged = Path(resume), []
        state = checkpoint.load_checkpoint(path)
    notes = [f"checkpoint {file} is damaged: passed over" for file in damaged]
    if state is not None:
        notes.append(f"resuming from {path}, step {state['step']}")
    return path, state, notes
