"""Checkpoints: write atomically, find the newest valid one, refuse one of another run."""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.recipe import Recipe
from hvd_utils.run.folder import best_path, checkpoint_path, list_checkpoints

FORMAT = 1
EITHER = "give a run's folder or a checkpoint"
ANOTHER = "give another with --resume FILE, or remove it"

# May differ when a run resumes, since it does not change the steps already made; except where the
# rate runs down to 0 over the whole of the run.
LENGTH = "epochs"

FIRST_ORDER = 1  # of checkpoints that do not record the version of the shuffle

# What a setting was where a checkpoint does not have it, which came after it was saved.
DEFAULTS = {**Recipe().model_dump(mode="json"), "order": "stored"}


def save_checkpoint(
    output: Path,
    state: Mapping[str, Any],
    *,
    keep: int,
    best: bool = False,
    spared: Path | None = None,
) -> Path:
    """Write ``state`` under its step; keep it and the newest others, ``keep`` in all (0: all).

    ``spared`` is never removed: the one that the user named.

    Written under a temporary name, synced, then renamed: whenever it is interrupted, what carries
    a checkpoint's name is whole. What a killed writer left half-written is removed. With ``best``
    it is kept as ``best.pt`` too. Raises BadInput if it cannot be written; earlier ones stay.
    """
    path = checkpoint_path(output, state["step"])
    with _written_or_explained(output, path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob("*.tmp"):
            _remove_quietly(left)
        # A Python file, not a name: PyTorch then writes without the interpreter's lock all the
        # same, and a full disk keeps its own error.
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        if best:  # first: a run that is killed in between makes this epoch again
            _keep_best(output, temporary)
        os.replace(temporary, path)
        _sync_folder(path.parent)
        # By number others may be newer: of a run that went on from an earlier checkpoint.
        others = [old for old in list_checkpoints(output) if old not in (path, spared)]
        for old in others[keep - 1 :] if keep else ():
            old.unlink(missing_ok=True)
    return path


def mark_best(output: Path, step: int) -> Path:
    """Keep the checkpoint after ``step`` updates as ``best.pt``, however old it becomes.

    It is a second name of the same file where the file system has links, else a copy. Raises
    BadInput if it cannot be written; the best one before stays.
    """
    return _keep_best(output, checkpoint_path(output, step))


def _keep_best(output: Path, path: Path) -> Path:
    best = best_path(output)
    with _written_or_explained(output, best) as temporary:
        _remove_quietly(temporary)
        try:
            os.link(path, temporary)
        except OSError:  # no links here; if it is for another reason, the copy fails too
            _copy(path, temporary)
        os.replace(temporary, best)
        _remove_quietly(temporary)  # renaming does nothing if both names are of one file
        _sync_folder(best.parent)
    return best


def load_checkpoint(path: Path, remedy: str = EITHER) -> dict[str, Any]:
    """Return what ``save_checkpoint`` wrote, on the CPU, refusing pickled code.

    Raises BadInput if the file is not there, with the ``remedy``, damaged or not ours.
    """
    try:
        with zipfile.ZipFile(path) as file:  # PyTorch writes checksums but does not read them
            if file.testzip() is not None:
                raise zipfile.BadZipFile
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BadInput(f"no checkpoint {path}: {remedy}") from error
    except OSError as error:
        raise BadInput(f"cannot read checkpoint {path}: {error.strerror}") from error
    except Exception as error:  # PyTorch raises many kinds on damaged bytes
        raise BadInput(f"checkpoint {path} is damaged or no checkpoint: {ANOTHER}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise BadInput(f"{path} is not a checkpoint of this program (format {FORMAT})")
    require(state, path, "step")
    return state


def peek(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content unchecked, its tensors left on the disk until they are used.

    Raises whatever PyTorch raises where it cannot be read.
    """
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def require(state: Mapping[str, Any], path: Path, *names: str) -> None:
    """Raise BadInput naming what a checkpoint lacks of these."""
    missing = [name for name in names if name not in state]
    if missing:
        raise BadInput(f"checkpoint {path} is not whole, it has no {', '.join(missing)}: {ANOTHER}")


def require_finite(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Raise BadInput naming the first of a checkpoint's weights that are not finite."""
    for name, values in weights.items():
        if values.is_floating_point() and not torch.isfinite(values).all():
            raise BadInput(
                f"checkpoint {path} has weights that are not finite ({name}): give an earlier one"
            )


@contextlib.contextmanager
def explained(path: str | Path) -> Iterator[None]:
    """Turn what PyTorch raises where a checkpoint's content does not fit into BadInput."""
    try:
        yield
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        what = " ".join(str(error).split())[:200]
        raise BadInput(
            f"checkpoint {path} does not hold what this model and optimizer need ({what}): "
            f"{ANOTHER}"
        ) from error


def newest_valid(output: Path) -> tuple[Path | None, dict[str, Any] | None, list[Path]]:
    """Return the newest checkpoint that loads, its content, and the damaged ones passed over.

    Raises BadInput if there are checkpoints but none is whole: starting anew must be requested.
    """
    damaged: list[Path] = []
    for path in list_checkpoints(output):
        try:
            return path, load_checkpoint(path), damaged
        except BadInput:
            damaged.append(path)
    if damaged:
        raise BadInput(
            f"every checkpoint of {output} is damaged ({damaged[0].name} is the newest): remove "
            f"{damaged[0].parent} to start anew, or choose another --output"
        )
    return None, None, []


def check_model(state: Mapping[str, Any], path: Path, model: str, num_classes: int) -> None:
    """Raise BadInput unless the checkpoint is of this model and number of classes."""
    require(state, path, "experiment", "num_classes", "model")
    with explained(path):
        theirs = state["experiment"]["model"], state["num_classes"]
    if theirs != (model, num_classes):
        raise BadInput(
            f"checkpoint {path} is of {theirs[0]} with {theirs[1]} classes, this run is "
            f"{model} with {num_classes}: set --model, --recipe or --data to match"
        )


def check_data(state: Mapping[str, Any], path: Path, facts: Mapping[str, Any]) -> None:
    """Raise BadInput unless the run resumes with the same images, in the same order.

    ``facts`` are ``Plan.data_facts()``.
    """
    require(state, path, "train_images")
    if state["train_images"] != facts["train_images"]:
        raise BadInput(
            f"{path} was trained on {state['train_images']} images, --data now has "
            f"{facts['train_images']}: set --data back or choose another --output"
        )
    order = state.get("order", FIRST_ORDER)
    if order != facts["order"]:
        raise BadInput(
            f"{path} is of a run that shuffles by version {order}, this program by version "
            f"{facts['order']}: go on with the code that began it (environment.json names its "
            "commit), or choose another --output"
        )
    if state.get("train_digest") != facts["train_digest"]:
        raise BadInput(
            f"{path} was trained on {state['train_images']} other images or labels than --data "
            "now has, though as many: set --data back or choose another --output"
        )
    if state.get("shards", "") != facts.get("shards", ""):
        raise BadInput(
            f"{path} was trained by --shuffle window, whose order depends on the shards, and those "
            "of --data are cut otherwise: set --data back or choose another --output"
        )


def differing(
    theirs: Mapping[str, Any], ours: Mapping[str, Any], shown: Callable[[str], str] = str
) -> list[str]:
    """Return each fact that differs, by the name that is ``shown``, with both values."""
    return [
        f"{shown(name)} was {theirs.get(name)}, now {value}"
        for name, value in ours.items()
        if theirs.get(name) != value
    ]


def check_experiment(state: Mapping[str, Any], path: Path, experiment: Mapping[str, Any]) -> None:
    """Raise BadInput if the run would not be the same one, naming each setting with both values."""
    theirs = {**DEFAULTS, **state["experiment"]}  # settings that came after it was saved
    may_change = {LENGTH} if theirs["decay"] == "step" else set()
    kept = {name: value for name, value in experiment.items() if name not in may_change}
    if differ := differing(theirs, kept, lambda name: f"--{name.replace('_', '-')}"):
        raise BadInput(
            f"{path} is of another run: {'; '.join(differ)}: set them back or choose "
            "another --output"
        )


@contextlib.contextmanager
def _written_or_explained(output: Path, path: Path) -> Iterator[Path]:
    """Give the temporary name of ``path``; remove it and raise BadInput if the block fails."""
    temporary = path.with_suffix(".tmp")
    try:
        yield temporary
    except (OSError, RuntimeError) as error:  # PyTorch's writer turns a full disk into RuntimeError
        _remove_quietly(temporary)
        intact = [str(old) for old in list_checkpoints(output)[:1]]
        raise BadInput(
            f"cannot save {path}: {_reason(error)}; make room or choose another --output; "
            f"{f'saved before and intact: {intact[0]}' if intact else 'none was saved before'}"
        ) from error


def _reason(error: BaseException) -> str:
    while error.__cause__ or error.__context__:
        if isinstance(error, OSError) and error.strerror:
            break
        error = error.__cause__ or error.__context__
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def _remove_quietly(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as write:
        shutil.copyfileobj(read, write)
        write.flush()
        os.fsync(write.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
