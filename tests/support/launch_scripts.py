"""Run the scripts of slurm/ with programs that stand for others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support.launching import REPOSITORY

SCHEDULERS = ("PBS_NODEFILE", "LSB_DJOB_HOSTFILE", "LSB_MCPU_HOSTS")


def start(script: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess:
    """Run a launch script without preflight; of PBS, LSF and Slurm it knows what is given."""
    known = {k: v for k, v in os.environ.items() if k not in SCHEDULERS}
    given = {"DATA": "digits", "PREFLIGHT": "0", "PYTHONPATH": str(REPOSITORY)} | variables
    return subprocess.run(
        [*map(str, (REPOSITORY / "slurm" / script, *arguments))],
        capture_output=True, text=True, env=known | given, timeout=240,
    )  # fmt: skip


def stand_in(folder: Path, name: str, text: str) -> str:
    """Write a program that stands for another; return a PATH that has it first."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"
