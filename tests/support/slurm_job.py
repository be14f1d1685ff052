"""Jobs on the test cluster: submitted, watched, and pushed on where Slurm would have them wait."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hvd_utils.run.event_log import METRICS, read_events
from support.failures import note_launch
from support.launching import REPOSITORY
from support.slurm_cluster import Cluster

TIDY = 6  # seconds after which nothing of a requeued job's last start is left
LIMIT = 240  # seconds for whatever is waited for, on a busy machine
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


class Job:
    """A job of one of the repository's scripts; ``variables`` are those of its environment."""

    def __init__(
        self,
        cluster: Cluster,
        output: Path,
        *options: object,
        arguments: tuple[object, ...] = (),
        script: str = "resnet50_256gpu.sh",
        **variables: str,
    ) -> None:
        self._cluster, self.output = cluster, output
        self._console = output.with_suffix(".console")
        quiet = {"OMPI_MCA_mpi_yield_when_idle": "1", "OPENBLAS_NUM_THREADS": "1"}
        submitted = cluster.run(
            *("sbatch", "--parsable", f"--output={self._console}", *options),
            *(REPOSITORY / "slurm" / script, *arguments),
            **{"OUTPUT": str(output), "PREFLIGHT": "0", "PYTHONPATH": str(REPOSITORY)}
            | quiet
            | variables,
        )
        note_launch(["sbatch", *options, *arguments], self._console)
        self.id = submitted.partition(";")[0]
        self._pending_since = time.monotonic()

    @property
    def console(self) -> str:
        return self._console.read_text(errors="replace") if self._console.exists() else ""

    def fact(self, name: str) -> str:
        """What Slurm knows of the job, as its JobState."""
        shown = self._cluster.run("scontrol", "show", "job", self.id)
        return re.search(rf"\b{name}=(\S*)", shown)[1]

    def step(self) -> int:
        """The last step that was logged, 0 if none was."""
        if not (self.output / METRICS).exists():
            return 0
        return max((e["step"] for e in read_events(self.output) if e["event"] == "step"), default=0)

    def wait_for(self, happened: Callable[[], object], seconds: float = LIMIT) -> None:
        """Wait until something happened while the job waits, runs or starts again."""
        limit = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > limit or (state := self.fact("JobState")) in ENDED:
                state = self.fact("JobState")
                pytest.fail(f"did not come about; {state}, step {self.step()}:\n{self.console}")
            self._push_on(state)
            time.sleep(0.5)

    def train_until(self, step: int) -> None:
        self.wait_for(lambda: self.step() >= step)

    def _push_on(self, state: str) -> None:
        """Have a job that was requeued begin before its time, but not before its node is tidy."""
        if state != "PENDING":
            self._pending_since = time.monotonic()
        elif time.monotonic() - self._pending_since > TIDY:
            self.update("StartTime=now", "TimeLimit=60")

    def update(self, *what: str) -> None:
        """Change the job, if Slurm lets it be changed at this moment."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self._cluster.run("scontrol", "update", f"JobId={self.id}", *what)

    def finish(self) -> str:
        """Wait for the job's end, restarts included; return its state."""
        limit = time.monotonic() + LIMIT
        while (state := self.fact("JobState")) not in ENDED:
            if time.monotonic() > limit:
                pytest.fail(f"not finished: {state}, step {self.step()}:\n{self.console}")
            self._push_on(state)
            time.sleep(0.5)
        return state
