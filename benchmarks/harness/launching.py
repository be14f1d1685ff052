"""Launching a benchmark's ranks by mpirun, and what the first of them tells."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from typing import Any

from benchmarks.harness.processes import Failed, finish, python

MANY = 8  # ranks, from which on they give way to whatever else runs here


def gently(ranks: int) -> list[str]:
    """Return the start of a command of so many ranks."""
    return ["nice", "-n", "19"] if ranks >= MANY else []


def mpirun(ranks: int) -> list[str]:
    """Return the start of a command that launches so many ranks here."""
    command = [shutil.which("mpirun"), "-np", str(ranks), "--oversubscribe", "--bind-to", "none"]
    return [*gently(ranks), *command]


def figures_of(start: Sequence[str], module: str, *options: object, limit: float) -> dict[str, Any]:
    """Run ``python -m module options`` on ranks, and return the JSON that rank 0 printed.

    Raises Failed after ``limit`` seconds, or where it fails.
    """
    output = finish([*start, *python("-m", module, *options)], timeout=limit)
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise Failed(f"{module} printed no figures: {output[-600:]}")
    return json.loads(lines[-1])
