"""Makes the study's runs: each is the real job on a core of its own, and none is made twice.

One process carries all workers of a run: the same run as on many (``tests/parallel/training``), and
no core waits for another. A run is done when its log ends in an ``end`` event. One that was
interrupted goes on from its checkpoint, as any run does when the same command is given again.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.job import ENTRY
from benchmarks.harness.processes import SHOWN, Failed, end, python, start
from benchmarks.study.rows import Row
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.command_line import load_settings
from hvd_utils.inspect.final import read_result
from hvd_utils.run.event_log import METRICS, read_events

FUSED = 32  # workers in one pass: the same result, quicker where images are this small
LOOKS_APART = 0.1  # seconds between two looks at the runs under way
_told_to_stop = threading.Event()


def stop(*_: object) -> None:
    """End what is made, as a signal's handler; Python drops what it raises during a fork."""
    _told_to_stop.set()
    raise KeyboardInterrupt


@dataclass(frozen=True)
class Job:
    """One run: a setting and a seed, in a folder of its own below the study's."""

    row: Row
    seed: int
    study: Path
    data: Path
    others: tuple[str, ...] = ()  # flags that all runs of the study have

    @property
    def output(self) -> Path:
        """The run's folder."""
        return self.study / self.row.name / f"seed-{self.seed}"

    @property
    def flags(self) -> list[str]:
        """The arguments of ``train_imagenet.py``."""
        return [
            *(*self.row.flags, "--seed", str(self.seed), "--data", str(self.data), *self.others),
            *("--output", str(self.output), "--fuse-workers", str(FUSED), "--no-pin"),
            *("--device", "cpu", "--no-channels-last", "--keep-checkpoints", "1"),
            *("--log-every", "100"),
        ]

    def check(self) -> None:
        """Raise BadInput where its folder holds a run of other settings."""
        if (self.output / METRICS).exists():
            expected = load_settings(self.flags, {}).experiment()
            found = read_result(self.output).experiment
            for name, value in expected.items():
                if found[name] != value:
                    raise BadInput(
                        f"{self.output} was made with {name} {found[name]}, now it is {value}: "
                        "remove it, or choose another --output"
                    )

    @property
    def done(self) -> bool:
        """Whether the run is there as a whole."""
        return (self.output / METRICS).exists() and self._last_event().get("event") == "end"

    def seconds(self) -> float:
        """Return how long it trained; only of one that is done."""
        return self._last_event()["seconds"]

    def _last_event(self) -> dict[str, Any]:
        return next(reversed(list(read_events(self.output))), {})


def make(jobs: Sequence[Job], cores: Collection[int]) -> Iterator[tuple[Job, float]]:
    """Make the runs, as many at once as the cores allow; yield each with its seconds when done.

    Raises Failed with the last lines of a run that fails. Whatever still runs is ended then, and
    also where the caller stops early.
    """
    waiting, free = list(jobs), sorted(cores)
    under_way: list[tuple[subprocess.Popen, Job, int, float]] = []
    try:
        while waiting or under_way:
            while waiting and free:
                job, core = waiting.pop(0), free.pop(0)
                job.output.mkdir(parents=True, exist_ok=True)
                with _log(job).open("w") as log:
                    process = start(python(ENTRY, *job.flags), [core], output=log)
                under_way.append((process, job, core, time.monotonic()))
            time.sleep(LOOKS_APART)
            if _told_to_stop.is_set():
                raise KeyboardInterrupt
            for process, job, core, began in [
                one for one in under_way if one[0].poll() is not None
            ]:
                if process.returncode != 0:
                    said = _log(job).read_text(errors="replace")[-SHOWN:]
                    raise Failed(f"exit code {process.returncode} of {job.output}: {said}")
                under_way.remove((process, job, core, began))
                free.append(core)
                yield job, time.monotonic() - began
    finally:
        for process, *_ in under_way:
            end(process)


def _log(job: Job) -> Path:
    return job.output.with_suffix(".log")


class TimeLeft:
    """How long the runs that are left will take, from those that are done."""

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._taken: dict[str, list[float]] = {}  # seconds by setting

    def took(self, job: Job, seconds: float) -> None:
        """Count a run that is done."""
        self._taken.setdefault(job.row.name, []).append(seconds)

    def seconds(self, jobs: Sequence[Job]) -> float:
        """Return the seconds for ``jobs``, with all cores at work; 0 where nothing is known yet.

        A setting without a run yet is taken to be as long as the others.
        """
        known = {name: statistics.fmean(values) for name, values in self._taken.items()}
        usual = statistics.fmean(known.values()) if known else 0.0
        return sum(known.get(job.row.name, usual) for job in jobs) / self._cores


def own_cores() -> list[int]:
    """Return the cores that this process may use."""
    return sorted(os.sched_getaffinity(0))
