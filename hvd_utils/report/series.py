"""The data of a report: the events of a run as arrays, thinned to the resolution of a picture."""

from __future__ import annotations

import statistics
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hvd_utils.cli.errors import BadInput
from hvd_utils.inspect.final import Result, by_settings, read_result
from hvd_utils.inspect.run_state import RunState, read_state
from hvd_utils.paper.results import Reference, find_reference
from hvd_utils.timing.stopwatch import PARTS

POINTS = 400  # of one line; about one a pixel
POINTS_IN_ALL = 3000  # of the lines of one picture


@dataclass(frozen=True)
class Launch:
    """A launch: the step where it began and the seconds of training before it."""

    step: int
    seconds: float
    event: Mapping[str, Any]


@dataclass(frozen=True)
class SlowPeriod:
    """A rank that was slow for long, between two steps, and how slow at worst."""

    rank: int
    host: str
    at: str
    ratio: float
    first: int
    last: int


@dataclass(frozen=True)
class RunData:
    """A run as the report shows it. ``tag`` is its letter in pictures and tables."""

    state: RunState
    result: Result
    tag: str
    name: str
    group: int  # of those that differ in their seed alone

    @cached_property
    def seconds(self) -> np.ndarray:
        """Seconds in training at each event, without the pauses between launches."""
        times = np.array([event["time"] for event in self.state.events], float)
        passed = np.diff(times, prepend=times[:1]).clip(min=0)
        passed[[event["event"] == "start" for event in self.state.events]] = 0
        return passed.cumsum()

    @cached_property
    def launches(self) -> list[Launch]:
        """Its launches, oldest first."""
        pairs = zip(self.state.events, self.seconds, strict=True)
        return [Launch(e["step"], float(s), e) for e, s in pairs if e["event"] == "start"]

    @property
    def restarts(self) -> list[Launch]:
        """Every launch but the first."""
        return self.launches[1:]

    @cached_property
    def steps(self) -> Columns:
        """The windows logged."""
        return Columns(self, "step")

    @cached_property
    def epochs(self) -> Columns:
        """The epochs finished."""
        return Columns(self, "epoch")

    @property
    def minibatch(self) -> int:
        """Images in a step, kn."""
        if self.state.launch:
            return self.state.launch["minibatch"]
        return (self.result.experiment["workers"] or 1) * self.result.experiment["batch_per_worker"]

    @cached_property
    def steps_per_epoch(self) -> float | None:
        """Steps in an epoch; None where it is not known yet."""
        ended = self.state.of("epoch")
        if ended:
            return ended[-1]["step"] / (ended[-1]["epoch"] + 1)
        settings = self.state.settings
        if settings.get("loader") == "synthetic":
            return settings["synthetic_images"] / self.minibatch
        if self.state.total_steps and not settings.get("max_steps"):
            return self.state.total_steps / self.state.epochs
        return None

    @property
    def images_per_second(self) -> float:
        """The median over the windows of the last launch that logged any."""
        windows = self.state.steps or self.state.of("step")
        return statistics.median(event["images_per_second"] for event in windows)

    @property
    def reference(self) -> Reference | None:
        """The paper's figure for these settings."""
        return find_reference(self.result.experiment, self.result.val_images, self.minibatch)

    @property
    def split(self) -> np.ndarray | None:
        """How a step divides into ``PARTS``, the mean over all windows."""
        found = self.steps.split
        return None if np.isnan(found).all() else np.nanmean(found, axis=0)

    @cached_property
    def slow(self) -> list[SlowPeriod]:
        """Ranks that were slow for long, worst first."""
        spells: dict[tuple, SlowPeriod] = {}
        for event in self.state.of("step"):
            if "slow_rank" not in event:
                continue
            key = (event["slow_rank"], event["slow_since"])
            worst = max(event["slow_ratio"], spells[key].ratio if key in spells else 0)
            spells[key] = SlowPeriod(
                event["slow_rank"], event["slow_host"], event["slow_at"], worst,
                event["slow_since"], event["step"],
            )  # fmt: skip
        return sorted(spells.values(), key=lambda spell: -spell.ratio)


class Columns:
    """The events of one kind of a run, by column; what an event lacks is NaN."""

    def __init__(self, run: RunData, kind: str) -> None:
        pairs = zip(run.state.events, run.seconds, strict=True)
        found = [(event, seconds) for event, seconds in pairs if event["event"] == kind]
        self.events = [event for event, _ in found]
        self.seconds = np.array([seconds for _, seconds in found], float)

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, name: str) -> np.ndarray:
        values = [event.get(name) for event in self.events]
        return np.array([np.nan if value is None else value for value in values], float)

    @property
    def split(self) -> np.ndarray:
        """A row a window: how its steps divide into ``PARTS``."""
        nothing = dict.fromkeys(PARTS, np.nan)
        splits = [event.get("step_split", nothing) for event in self.events]
        return np.array([[each[part] for part in PARTS] for each in splits]).reshape(-1, len(PARTS))

    def spread(self, part: str) -> np.ndarray:
        """A row a window: least, median and most seconds per step of a part, over the ranks."""
        found = [event.get(f"{part}_seconds", [np.nan] * 3) for event in self.events]
        return np.array(found, float).reshape(-1, 3)


def read_runs(folders: Sequence[Path], now: float) -> list[RunData]:
    """Read the folders of runs. Raises BadInput naming one that is no run or has logged no step."""
    states, results = [], []
    for folder in dict.fromkeys(folders):
        state = read_state(folder, now)
        if not state.of("step"):
            raise BadInput(f"{folder} has logged no step yet: report on it once it trains")
        states.append(state)
        results.append(read_result(folder, state.events))
    groups = by_settings(results)
    group_of = {id(result): n for n, group in enumerate(groups) for result in group}
    names = short_names([state.folder for state in states])
    return [
        RunData(state, result, tag(n), name, group_of[id(result)])
        for n, (state, result, name) in enumerate(zip(states, results, names, strict=True))
    ]


def tag(number: int) -> str:
    """Return the letter of a run, from 0: A to Z, then AA, AB and so on."""
    before, letter = divmod(number, 26)
    return (tag(before - 1) if before else "") + string.ascii_uppercase[letter]


def short_names(folders: Sequence[Path]) -> list[str]:
    """Return the folders' last parts, as many as make them distinct."""
    whole = [folder.resolve().parts for folder in folders]
    longest = max(len(parts) for parts in whole)
    for count in range(1, longest + 1):
        names = ["/".join(parts[-count:]) for parts in whole]
        if len(set(names)) == len(names):
            break
    return names


def thin(points: int, *columns: np.ndarray) -> list[np.ndarray]:
    """Return columns of at most so many values: means over equal parts, of what is not NaN."""
    length = len(columns[0])
    if length <= points:
        return list(columns)
    starts = np.linspace(0, length, points, endpoint=False).astype(int)
    thinned = []
    for column in columns:
        known = ~np.isnan(column)
        counts = np.add.reduceat(known.astype(float), starts)
        sums = np.add.reduceat(np.where(known, column, 0.0), starts)
        thinned.append(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))
    return thinned


def envelope(points: int, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return least and most of the parts over which ``thin`` takes means."""
    if len(column) <= points:
        return column, column
    starts = np.linspace(0, len(column), points, endpoint=False).astype(int)
    return np.fmin.reduceat(column, starts), np.fmax.reduceat(column, starts)


def points_of_each(runs: int) -> int:
    """Return how many points a line may have where so many runs are shown."""
    return max(60, min(POINTS, POINTS_IN_ALL // runs))


def differing(runs: Iterable[RunData]) -> dict[str, list[Any]]:
    """Return the settings in which runs differ, by name: a value for each run.

    Where a run lies and how it began does not count; processes and code do.
    """
    tables = [_facts(run) for run in runs]
    names = dict.fromkeys(name for table in tables for name in table)
    columns = {name: [table.get(name) for table in tables] for name in names}
    return {n: values for n, values in columns.items() if any(v != values[0] for v in values)}


def _facts(run: RunData) -> dict[str, Any]:
    unimportant = ("output", "resume", "eval_only")
    facts = {name: value for name, value in run.state.settings.items() if name not in unimportant}
    launch = run.state.launch or {}
    facts["processes"] = launch.get("processes")
    facts["hosts"] = len(launch.get("hosts", ()))
    facts["devices"] = ", ".join(launch.get("devices", ()))
    facts["commit"] = ((launch.get("git") or {}).get("commit") or "")[:10] or None
    packages = launch.get("packages") or {}
    return facts | {name: version for name, version in packages.items() if version}
