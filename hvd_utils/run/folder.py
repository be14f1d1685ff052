"""A run's folder: its creation, and the names of its checkpoints. Needs no torch."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from hvd_utils.cli.errors import BadInput

_NAME = re.compile(r"checkpoint-(\d+)\.pt")


def checkpoint_path(output: Path, step: int) -> Path:
    """Return where the checkpoint after ``step`` updates lies."""
    return output / "checkpoints" / f"checkpoint-{step:08d}.pt"


def list_checkpoints(output: Path) -> list[Path]:
    """Return the finished checkpoints of a run, newest first."""
    folder = output / "checkpoints"
    found = [path for path in folder.glob("*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """Return after how many updates a checkpoint was made, by its name."""
    return int(_NAME.fullmatch(path.name)[1])


def best_path(output: Path) -> Path:
    """Return where the best checkpoint of a run lies, kept beside the newest ones."""
    return output / "checkpoints" / "best.pt"


def create_output(output: Path | None, recipe: str) -> Path:
    """Create and return the run's folder: ``output``, or a new one below ``runs/``.

    Raises BadInput if it cannot be written.
    """
    try:
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            if not os.access(output, os.W_OK | os.X_OK):
                raise PermissionError(0, "Permission denied")
            return output
        stem = f"{Path(recipe).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
        for attempt in range(100):
            folder = Path("runs") / (f"{stem}-{attempt}" if attempt else stem)
            try:
                folder.mkdir(parents=True)
                return folder
            except FileExistsError:
                continue
        raise FileExistsError(0, "too many runs in this second")
    except OSError as error:
        raise BadInput(
            f"cannot write to output folder {output or 'runs/'}: {error.strerror}; "
            "set --output to a folder that can be written"
        ) from error
