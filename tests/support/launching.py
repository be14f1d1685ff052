"""Launch real ranks under a time limit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from support.failures import note_launch
from support.quick_python import quick_python

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = REPOSITORY / "tests" / "programs"
JOB = str(REPOSITORY / "train_imagenet.py")
OF_TESTS = ("IMAGENET_DIR", "PYTEST_XDIST")  # variables that are not for what is tested
LAUNCHERS = {
    "mpi": ["horovodrun", "-np"],
    "gloo": ["horovodrun", "--gloo", "-np"],
    "mpirun": ["mpirun", "-np"],
}


@dataclass(frozen=True)
class Finished:
    """A job that ended: its exit code, everything that all ranks printed, and its wall time."""

    code: int
    output: str
    seconds: float


def launch(
    command: list[str],
    *,
    ranks: int = 1,
    by: str = "mpi",
    timeout: float = 600,
    cwd: Path | None = None,
    quick: bool = True,
    **environment: str,
) -> Finished:
    """Run ``python command`` on ``ranks`` ranks; kill what it started if it takes too long.

    The limit ends what hangs; a busy machine may take minutes over what takes seconds elsewhere.

    Where the start itself is tested, or how a process dies, it must not be the ``quick`` Python.
    """
    python = [*(quick_python(environment) if quick else [sys.executable]), *command]
    if by != "python":
        python = [*LAUNCHERS[by], str(ranks), *python]
    variables = {k: v for k, v in os.environ.items() if not k.startswith(OF_TESTS)} | environment
    began = time.monotonic()
    process = subprocess.Popen(
        python,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=variables,
        cwd=cwd,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill_tree(process)
        output, _ = process.communicate()
        note_launch(python, output)
        pytest.fail(f"not finished after {timeout} s: {' '.join(python)}\n{output[-3000:]}")
    note_launch(python, output)
    return Finished(process.returncode, output, time.monotonic() - began)


def kill_tree(process: subprocess.Popen) -> None:
    """End a launcher and every process below it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(below, timeout=5)
        for child in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()


def train(*arguments: object, **options) -> Finished:
    """Run the job with these arguments; see ``launch``."""
    return launch([JOB, *map(str, arguments)], **options)


# The settings of a run small enough to launch dozens of times.
TINY = (
    *("--recipe", "demo", "--resolution", "16", "--val-resize", "16", "--batch-per-worker", "4"),
    *("--epochs", "2", "--log-every", "1", "--loader-threads", "1"),
)
