"""Where a run goes on: from a checkpoint, or from what surviving processes still hold."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import torch
from torch import nn

from hvd_utils import checkpoint
from hvd_utils.averaging import AveragedWeights
from hvd_utils.batch_norm import batch_norms
from hvd_utils.checkpoint_files import list_checkpoints, step_of
from hvd_utils.events import replace_text
from hvd_utils.failure import BadInput
from hvd_utils.guard import Guard
from hvd_utils.layout import in_memory_order
from hvd_utils.progress import Progress
from hvd_utils.settings import Settings
from hvd_utils.world import World

State = Mapping[str, Any]

BEGUN_FROM = "begun-from.txt"  # in a run's folder: the checkpoint that --resume named
SET_ASIDE = ".pt.set-aside"  # ending of checkpoints that a run went back behind


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
    epoch_ends: Sequence[int],
) -> Progress:
    """Bring model, average and optimizer to ``state``, or all ranks to rank 0's first weights.

    Collective. Returns how far the run is; its epochs end at the steps ``epoch_ends``. Raises
    BadInput where the state is not of such a run.
    """
    if state is None:
        first = {name: in_memory_order(value) for name, value in model.state_dict().items()}
        hvd.broadcast_parameters(first, root_rank=0)
        averaged.restart()
        return Progress()
    with checkpoint.explained(state.get("path", "that other processes hold")):
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state.get("averaged", {}))
        optimizer.load_state_dict(state["optimizer"])
        for parameter, values in optimizer.state.items():  # whichever layout they were saved in
            for name, value in values.items():
                if value.shape != parameter.shape:
                    raise ValueError(f"{name} of shape {tuple(value.shape)}")
                values[name] = torch.empty_like(parameter).copy_(value)
        guard.load_state_dict(state.get("guard", {}))
        progress = Progress(**state["progress"])
        progress.check(epoch_ends)
        return progress


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
            state["path"] = str(path)
            if path == named_checkpoint(settings.resume, output):
                notes += _begin_from(path, state["step"], output)
    return world.broadcast(state), notes


def named_checkpoint(resume: str, output: Path) -> Path | None:
    """Return the file that --resume names, as ``list_checkpoints`` would if it is one of the run's.

    None where it names none.
    """
    if resume in ("auto", "never"):
        return None
    path = Path(resume)
    own = output / "checkpoints" / path.name
    return own if own.exists() and path.exists() and own.samefile(path) else path


def _find(resume: str, output: Path) -> tuple[Path | None, State | None, list[str]]:
    """Return the checkpoint to go on from, its content, and lines to show about the choice."""
    if resume == "never":
        if list_checkpoints(output):
            raise BadInput(
                f"{output} already holds a run: leave out --resume never to go on with it, "
                "or choose another --output"
            )
        return None, None, []
    named = named_checkpoint(resume, output)
    if named is None:
        return _newest(output)
    existing = list_checkpoints(output)
    if existing and _begun_from(output) == str(named.absolute()):
        path, state, notes = _newest(output)
        again = f"to begin there again, remove {output / BEGUN_FROM}"
        return path, state, [*notes, f"{named} is where this run began: {again}"]
    state = checkpoint.load_checkpoint(named)
    if existing and named.parent != output / "checkpoints":
        raise BadInput(
            f"{output} already holds a run, which --resume {named} would break off: leave out "
            "--resume to go on with it, or choose another --output"
        )
    return named, state, [f"resuming from {named}, step {state['step']}"]


def _begin_from(named: Path, step: int, output: Path) -> list[str]:
    """Remember the checkpoint that the user named, so that the next launch goes on from here.

    Later ones of the run are set aside. Returns lines to show about them.
    """
    if _begun_from(output) == str(named.absolute()):
        return []
    later = [old for old in list_checkpoints(output) if step_of(old) > step]
    for old in later:
        os.replace(old, old.with_suffix(SET_ASIDE))
    replace_text(output / BEGUN_FROM, f"{named.absolute()}\n")
    return [f"set aside: {old.with_suffix(SET_ASIDE)}" for old in later]


def _begun_from(output: Path) -> str | None:
    try:
        text = (output / BEGUN_FROM).read_text(encoding="utf-8", errors="surrogateescape")
        return text.strip()
    except OSError:
        return None


def _newest(output: Path) -> tuple[Path | None, State | None, list[str]]:
    path, state, damaged = checkpoint.newest_valid(output)
    notes = [f"checkpoint {file} is damaged: passed over" for file in damaged]
    if state is not None:
        notes.append(f"resuming from {path}, step {state['step']}")
    return path, state, notes
