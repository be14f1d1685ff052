"""The state of a run, read from its folder: its log, its lock and its heartbeats."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hvd_utils.cli.errors import BadInput
from hvd_utils.faults.folder_lock import is_held, last_holder
from hvd_utils.faults.heartbeat import FOLDER, Heartbeat, read_heartbeats
from hvd_utils.run.event_log import ALL_FIELDS, METRICS, Fields, read_events
from hvd_utils.run.folder import list_checkpoints
from hvd_utils.timing.step_times import mean_split

RUNNING, FINISHED, STOPPED, DEAD = "running", "finished", "stopped", "no sign of life"
SILENT = 120  # seconds without a sign of life; ranks report every 10 s at least
WINDOWS = 5  # the last ones, over which a step's split is taken

Event = Mapping[str, Any]


@dataclass(frozen=True)
class RunState:
    """A run's folder as it was read at ``now``, in seconds since the epoch."""

    folder: Path
    now: float
    settings: Mapping[str, Any]
    events: Sequence[Event]
    held: bool | None  # its lock
    holder: Mapping[str, Any] | None
    last_sign: float  # when anything of it was written last
    reports: Mapping[int, Heartbeat]
    checkpoints: Sequence[tuple[str, float]]  # name and time, newest first
    errors: Sequence[str]  # names of the files that unexpected errors left in this launch

    def of(self, kind: str) -> list[Event]:
        """Return its events of a kind, oldest first."""
        return [event for event in self.events if event["event"] == kind]

    @property
    def launch(self) -> Event | None:
        """The start of the last launch that trained."""
        starts = self.of("start")
        return starts[-1] if starts else None

    @property
    def of_launch(self) -> Sequence[Event]:
        """The events of that launch."""
        return list(launches(self.events))[-1] if self.launch else []

    @property
    def steps(self) -> list[Event]:
        """The windows that this launch logged."""
        return [event for event in self.of_launch if event["event"] == "step"]

    @property
    def state(self) -> str:
        """One of RUNNING, FINISHED, STOPPED and DEAD."""
        kinds = {event["event"] for event in self.of_launch}
        if "end" in kinds:
            return FINISHED
        if self.held:
            return RUNNING
        if "stop" in kinds:
            return STOPPED
        here = self.held is False and (self.holder or {}).get("host") == socket.gethostname()
        return DEAD if here or self.now - self.last_sign > SILENT else RUNNING

    @property
    def step(self) -> int:
        """Updates made, as far as it is known."""
        return max((event.get("step", 0) for event in self.events), default=0)

    @property
    def total_steps(self) -> int | None:
        """The step at which the run ends; None where it is not known yet."""
        if self.launch and "total_steps" in self.launch:
            return self.launch["total_steps"]
        if self.state == FINISHED:
            return self.step
        epochs, most = self.of("epoch"), self.settings.get("max_steps")
        if not (epochs and self.epochs):
            return most
        total = round(epochs[-1]["step"] / (epochs[-1]["epoch"] + 1) * self.epochs)
        return min(total, most or total)

    @property
    def epochs(self) -> int | None:
        """Epochs of the whole run."""
        return self.settings.get("epochs") or (self.launch or {}).get("epochs")

    @property
    def split(self) -> dict[str, float] | None:
        """How a step divides into parts, over the last windows; None where it was not measured."""
        splits = [e["step_split"] for e in self.steps[-WINDOWS:] if "step_split" in e]
        return mean_split(splits) if splits else None

    @property
    def elapsed(self) -> tuple[float, float]:
        """Seconds of the last launch and of all of them."""
        seconds = [events[-1]["time"] - events[0]["time"] for events in launches(self.events)]
        if self.launch and self.state == RUNNING:
            seconds[-1] = self.now - self.launch["time"]
        return (seconds[-1], sum(seconds)) if seconds else (0.0, 0.0)

    @property
    def left(self) -> float | None:
        """Seconds until the end at the pace of the last launch; None where it is unknown."""
        if not (self.steps and self.total_steps) or self.state == FINISHED:
            return None
        last = self.steps[-1]
        made = last["step"] - self.launch["step"]
        if made <= 0:
            return None
        pace = (last["time"] - self.launch["time"]) / made
        since = self.now - last["time"] if self.state == RUNNING else 0
        return max(0.0, pace * (self.total_steps - last["step"]) - since)


def read_state(folder: Path, now: float, fields: Fields = ALL_FIELDS) -> RunState:
    """Read a run's folder; raise BadInput if it is none, or its events have not the ``fields``."""
    if not (folder / METRICS).exists() and not (folder / "lock").exists():
        raise BadInput(f"{folder} is not the folder of a run: give what --output named")
    events = list(read_events(folder, fields)) if (folder / METRICS).exists() else []
    starts = [event for event in events if event["event"] == "start"]
    size = starts[-1]["processes"] if starts else 0
    began = starts[-1]["time"] if starts else 0.0
    signs = [folder / METRICS, folder / "lock", *(folder / FOLDER).glob("*.json")]
    return RunState(
        folder=folder,
        now=now,
        settings=_settings(folder),
        events=events,
        held=is_held(folder),
        holder=last_holder(folder),
        last_sign=max((time for _, time in _times(signs)), default=0.0),
        reports=read_heartbeats(folder, size),
        checkpoints=list(_times(list_checkpoints(folder))),
        errors=[name for name, time in _times(sorted(folder.glob("error-*.txt"))) if time > began],
    )


def launches(events: Sequence[Event]) -> Iterator[list[Event]]:
    """Divide a run's events into those of each launch, which begin with its start."""
    launch: list[Event] = []
    for event in events:
        if event["event"] == "start":
            if launch:
                yield launch
            launch = []
        elif not launch:
            continue
        launch.append(event)
    if launch:
        yield launch


def _settings(folder: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load((folder / "settings.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, RecursionError, yaml.YAMLError):
        return {}
    if not isinstance(values, dict):
        return {}
    counts = (values.get(name) for name in ("epochs", "max_steps"))
    known = all(count is None or type(count) is int for count in counts)
    return values if known else {}  # of another version


def _times(paths: Sequence[Path]) -> Iterator[tuple[str, float]]:
    for path in paths:
        with contextlib.suppress(OSError):  # removed in the meantime
            yield path.name, os.stat(path).st_mtime
