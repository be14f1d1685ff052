"""A job that is watched, and interfered with, while it trains."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from hvd_utils.run.event_log import METRICS, read_events
from support.failures import note_launch
from support.launching import LAUNCHERS, PROGRAMS, REPOSITORY, kill_tree
from support.quick_python import forked_for, quick_python, runs

PACED = str(PROGRAMS / "paced_job.py")
START_LIMIT = 300  # seconds, on a busy machine


class RunningJob:
    """``paced_job.py`` with these options, on ranks of its own; a context manager that ends it."""

    def __init__(
        self, output: Path, *options: object, by: str, ranks: int = 2, pause: float = 0.05
    ) -> None:
        launcher = [] if by == "python" else [*LAUNCHERS[by], str(ranks)]
        self.output = output
        self._console = output.with_suffix(".console")
        command = [*launcher, *quick_python(), PACED, str(pause), *map(str, options)]
        command += ["--output", str(output)]
        note_launch(command, self._console)
        with self._console.open("w") as console:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={
                    **{k: v for k, v in os.environ.items() if k != "IMAGENET_DIR"},
                    "PYTHONPATH": str(REPOSITORY),
                },
                start_new_session=True,
            )

    def __enter__(self) -> RunningJob:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            kill_tree(self.process)
        for rank in self.ranks():
            with contextlib.suppress(psutil.NoSuchProcess):
                rank.kill()

    @property
    def console(self) -> str:
        return self._console.read_text(errors="replace")

    def step(self) -> int:
        """The last step that was logged, 0 if none was."""
        if not (self.output / METRICS).exists():
            return 0
        steps = [e["step"] for e in read_events(self.output) if e["event"] == "step"]
        return steps[-1] if steps else 0

    def ranks(self) -> list[psutil.Process]:
        """The processes that train, none of the launcher's."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if runs(process, PACED) and str(self.output) in process.cmdline():
                    found.append(process)
        return found

    def rank(self, number: int) -> psutil.Process:
        """The process of one rank."""
        for process in self.ranks():
            ranks = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK")
            with contextlib.suppress(psutil.Error):
                if str(number) in [process.environ().get(name) for name in ranks]:
                    return forked_for(process)
        raise AssertionError(f"no rank {number}:\n{self.console}")

    def wait_for(self, happened: Callable[[], object], seconds: float = START_LIMIT) -> None:
        """Wait until something happened while the job runs."""
        limit = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > limit or self.process.poll() is not None:
                pytest.fail(f"did not come about:\n{self.console[-3000:]}")
            time.sleep(0.05)

    def train_until(self, step: int) -> None:
        self.wait_for(lambda: self.step() >= step)

    def wait_for_no_ranks(self, seconds: float = 240) -> None:
        """Wait until nobody is left, the launcher being gone."""
        _, alive = psutil.wait_procs(self.ranks(), timeout=seconds)
        assert not alive, self.console

    def finish(self, seconds: float = 240) -> int:
        """Wait for the end; return the launcher's exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"not finished after {seconds} s:\n{self.console[-3000:]}")
