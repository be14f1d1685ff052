"""Made-up data sets, and launching real ranks under a time limit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent
JOB = str(REPOSITORY / "train_imagenet.py")
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
    timeout: float = 120,
    cwd: Path | None = None,
    **environment: str,
) -> Finished:
    """Run ``python command`` on ``ranks`` ranks; kill what it started if it takes too long."""
    python = [sys.executable, *command]
    if by != "python":
        python = [*LAUNCHERS[by], str(ranks), *python]
    variables = {k: v for k, v in os.environ.items() if k != "IMAGENET_DIR"} | environment
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
        pytest.fail(f"not finished after {timeout} s: {' '.join(python)}\n{output[-3000:]}")
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


def write_jpegs(folder: Path, counts: dict[str, int], seed: int = 0) -> None:
    """Write smooth random JPEGs of various sizes into class folders."""
    random = np.random.default_rng(seed)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            height, width = random.integers(24, 96, size=2)
            coarse = random.integers(0, 256, size=(4, 5, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((int(width), int(height)), Image.BICUBIC)
            image.save(folder / name / f"{number:03d}.JPEG", quality=92)


# The settings of a run small enough to launch dozens of times.
TINY = (
    *("--recipe", "demo", "--resolution", "16", "--val-resize", "16", "--batch-per-worker", "4"),
    *("--epochs", "2", "--log-every", "1", "--loader-threads", "1"),
)
