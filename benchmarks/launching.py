"""Launching a benchmark's ranks by mpirun, under a time limit, without their spinning."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

MANY = 8  # ranks, from which on they give way to whatever else runs here
VARIABLES = {
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}


class Unfinished(Exception):
    """The ranks failed or took too long; the text is the end of what they printed."""


def mpirun(ranks: int) -> list[str]:
    """Return the start of a command that launches so many ranks here."""
    nice = ["nice", "-n", "19"] if ranks >= MANY else []
    return [
        *nice,
        shutil.which("mpirun"),
        "-np",
        str(ranks),
        "--oversubscribe",
        "--bind-to",
        "none",
    ]


def figures_of(start: Sequence[str], module: str, *options: object, limit: float) -> dict[str, Any]:
    """Run ``python -m module options`` on ranks, and return the JSON that rank 0 printed.

    Raises Unfinished after ``limit`` seconds, when all of it has been ended, or if it failed.
    """
    process = subprocess.Popen(
        [*start, sys.executable, "-m", module, *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **VARIABLES},
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # mpirun ends its ranks
        output, _ = process.communicate()
        raise Unfinished(f"not done after {limit:.0f} s: {output[-2000:]}") from None
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if process.returncode != 0 or not lines:
        raise Unfinished(output[-2000:])
    return json.loads(lines[-1])
