"""One rank of ``benchmarks.startup``: the job up to its first step, with the time at each turn.

``python -m benchmarks.harness.startup_rank FOLDER JOB'S OPTIONS``. The job is as it is; what it
calls by name on its way is wrapped here. Each rank leaves FOLDER/RANK.json: the moments, as
time.time(), at which each part began and ended.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hvd_utils.cli.imports import quick_imports
from hvd_utils.cli.run_main import run_main

# In the job's order: (part, module, function). Several calls of one part add up.
PARTS = (
    ("settings", "train_imagenet", "load_settings"),
    ("index and data", "train_imagenet", "check_data"),
    ("Horovod init", "horovod.torch", "init"),
    ("index and data", "train_imagenet", "open_dataset"),
    ("loader", "dali_pipeline.loading.loader", "make_loader"),
    ("model", "hvd_utils.nn.models", "build_model"),
    ("optimizer", "hvd_utils.training.train_state", "build_optimizer"),
    ("broadcast of weights", "horovod.torch", "broadcast_parameters"),
)


def main() -> None:
    """Run the job with its parts timed."""
    folder = Path(sys.argv.pop(1))
    import train_imagenet

    marks: list[tuple[str, float, float]] = []
    started = time.time() - age()
    job = train_imagenet.job

    def timed_job(*arguments: Any) -> None:
        with quick_imports():
            from hvd_utils.run.lifecycle import Run

            wrap([part for part in PARTS if part[1] != "train_imagenet"], marks)
        finish_step = Run.finish_step
        Run.__init__ = timed("run's folder", Run.__init__, marks)

        def first(run: Run, *step: Any) -> None:
            file = folder / f"{run.world.rank}.json"
            if not file.exists():
                found = {"started": started, "done": time.time(), "marks": marks}
                file.write_text(json.dumps(found))
            finish_step(run, *step)

        Run.finish_step = first  # type: ignore[assignment]
        job(*arguments)

    wrap([part for part in PARTS if part[1] == "train_imagenet"], marks)
    train_imagenet.job = timed_job  # type: ignore[assignment]
    train_imagenet.main()


def age() -> float:
    """Return the seconds since this process began; psutil knows them to a second only."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    since_boot = float(Path("/proc/uptime").read_text().split()[0])
    return since_boot - ticks / os.sysconf("SC_CLK_TCK")


def wrap(parts: Sequence[tuple[str, str, str]], marks: list) -> None:
    """Put functions that leave marks in the places of the named ones."""
    for part, module, name in parts:
        place = importlib.import_module(module)
        setattr(place, name, timed(part, getattr(place, name), marks))


def timed(part: str, function: Callable, marks: list) -> Callable:
    """Return ``function``, which leaves in ``marks`` when it began and ended."""

    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        began = time.time()
        try:
            return function(*arguments, **named)
        finally:
            marks.append((part, began, time.time()))

    return run


if __name__ == "__main__":
    run_main(main)
