"""Where a run's checkpoints lie: names alone, for programs that do without torch."""

from __future__ import annotations

import re
from pathlib import Path

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
