"""Resume: choose the checkpoint that ``--resume`` names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dali_pipeline.sampling.order import VERSIONS
from hvd_utils.cli.counted import counted
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.files import replace_text
from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend.world import World
from hvd_utils.run import checkpoint
from hvd_utils.run.folder import list_checkpoints, step_of
from hvd_utils.run.state import State

BEGUN_FROM = "begun-from.txt"  # in a run's folder: the checkpoint that --resume named
MISSING = "give a file below RUN/checkpoints, or leave out --resume"
SET_ASIDE = ".pt.set-aside"  # ending of checkpoints that a run went back behind


def as_begun(settings: Settings, world: World, earlier: State | None) -> Settings:
    """Return ``settings`` with the k and the order of the run that goes on; collective.

    Those that the settings name stay. ``earlier`` is the state that processes of another world
    kept. Known before the run is opened, since the plan of its images needs it. Raises BadInput
    where there are more processes than that k.
    """
    if earlier:
        begun = _begun_as(earlier)
    else:
        begun = world.broadcast(_begun_as_run(settings) if world.is_root else None)
    update = {name: value for name, value in begun.items() if name not in settings.model_fields_set}
    if settings.workers is None and world.size > (update.get("workers") or world.size):
        raise BadInput(
            f"the run was begun with {counted(update['workers'], 'worker')}, which {world.size} "
            f"processes cannot share: start at most {update['workers']}, or choose another --output"
        )
    return settings.model_copy(update=update)


def _begun_as_run(settings: Settings) -> dict[str, Any]:
    """Return how the run that goes on was begun, by any checkpoint of it; empty: a new run."""
    output = settings.output
    try:
        own = list_checkpoints(output) if output else []
    except OSError:  # no folder can be there, as is told where it is made
        own = []
    named = named_checkpoint(settings.resume, output or Path())
    for path in ([named] if named else []) + (own if settings.resume != "never" else []):
        with contextlib.suppress(Exception):  # damaged: told where it is to be loaded
            return _begun_as(checkpoint.peek(path))
    return {}


def _begun_as(state: State) -> dict[str, Any]:
    experiment = {**checkpoint.DEFAULTS, **state["experiment"]}
    if experiment["order"] not in VERSIONS or type(experiment["workers"]) not in (int, type(None)):
        raise ValueError(experiment)
    return {name: experiment[name] for name in ("order", "workers")}


def find_state(
    settings: Settings, world: World, output: Path, data_facts: Mapping[str, Any]
) -> tuple[State | None, list[str]]:
    """Return the state that --resume names, if any, and lines to show about it; collective.

    Rank 0 finds, reads and broadcasts it. Raises BadInput if it is damaged or of another
    run.
    """
    state: dict[str, Any] | None = None
    notes: list[str] = []
    if world.is_root:
        path, state, notes = _find(settings.resume, output)
        if state is not None:
            checkpoint.check_model(state, path, settings.model, data_facts["num_classes"])
            checkpoint.check_experiment(state, path, settings.experiment())
            checkpoint.check_data(state, path, data_facts)
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


def _find(resume: str, output: Path) -> tuple[Path | None, dict[str, Any] | None, list[str]]:
    """Return the checkpoint to resume from, its content, and lines to show about the choice."""
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
    state = checkpoint.load_checkpoint(named, MISSING)
    if existing and named.parent != output / "checkpoints":
        raise BadInput(
            f"{output} already holds a run, which --resume {named} would break off: leave out "
            "--resume to go on with it, or choose another --output"
        )
    return named, state, [f"resuming from {named}, step {state['step']}"]


def _begin_from(named: Path, step: int, output: Path) -> list[str]:
    """Record the checkpoint that the user named, so that the next launch continues this run.

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


def _newest(output: Path) -> tuple[Path | None, dict[str, Any] | None, list[str]]:
    path, state, damaged = checkpoint.newest_valid(output)
    notes = [f"checkpoint {file} is damaged: passed over" for file in damaged]
    if state is not None:
        notes.append(f"resuming from {path}, step {state['step']}")
    return path, state, notes
