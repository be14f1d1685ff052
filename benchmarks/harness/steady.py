"""The steady state of one measured job: what is timed, and how it is told to the benchmark."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

LOG_EVERY = 20  # steps, the job's default: its windows are shorter only where warm-up is


@dataclass(frozen=True)
class Span:
    """Steps not counted, then steps counted; both multiples of the job's window."""

    warm_up: int
    steps: int

    def __post_init__(self) -> None:
        if self.steps % self.window or self.warm_up < 1:
            raise ValueError(f"{self.steps} steps are no whole number of windows of {self.window}")

    @property
    def window(self) -> int:
        """Steps between two lines of the job's log."""
        return math.gcd(self.warm_up, self.steps, LOG_EVERY)

    @property
    def last(self) -> int:
        """All steps made."""
        return self.warm_up + self.steps


class Mark(NamedTuple):
    """A moment: how many steps were made by then, and the wall clock's seconds."""

    step: int
    time: float
    waiting: float = 0.0  # how much of a step the middle rank waited for the slowest, 0 to 1


class NotAtOnce(Exception):
    """Jobs that were to be measured together were not in their steady state at the same time."""


def rate(marks: Sequence[Mark], images: int) -> float:
    """Return images/s between the first and the last mark; ``images`` are those of one step."""
    return (marks[-1].step - marks[0].step) * images / (marks[-1].time - marks[0].time)


def rates_at_once(jobs: Sequence[Sequence[Mark]], images: int) -> list[float]:
    """Return each job's images/s while all of them were in their steady state.

    Raises NotAtOnce where they were not at the same time for two marks at least.
    """
    begin = max(marks[0].time for marks in jobs)
    end = min(marks[-1].time for marks in jobs)
    common = [[mark for mark in marks if begin <= mark.time <= end] for marks in jobs]
    if min(map(len, common)) < 2:
        raise NotAtOnce("the jobs ran one after the other: measure more steps")
    return [rate(marks, images) for marks in common]


def job_marks(output: Path, span: Span) -> list[Mark]:
    """Return the marks of a run of ``train_imagenet.py`` from its log, warm-up left out."""
    lines = (output / "metrics.jsonl").read_text().splitlines()
    events = [event for event in map(json.loads, lines) if event["event"] == "step"]
    return [Mark(e["step"], e["time"], _waiting(e)) for e in events if e["step"] >= span.warm_up]


def _waiting(event: Mapping[str, Any]) -> float:
    """Return how much of a step the middle rank has computed before the slowest has, 0 to 1."""
    _, middle, most = event.get("compute_seconds", (0, 1, 1))
    return 1 - middle / most


class Clock:
    """Takes a loop's marks: after the warm-up and after the last step."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._marks: list[Mark] = []

    def tick(self, made: int) -> None:
        """Say how many steps were made."""
        if made in (self._span.warm_up, self._span.last):
            self._marks.append(Mark(made, time.time()))

    def tell(self) -> None:
        """Print the marks for ``told_marks``."""
        print(json.dumps({"marks": self._marks}), flush=True)


def told_marks(output: str) -> list[Mark]:
    """Return the marks that a loop's ``Clock`` printed."""
    for line in reversed(output.splitlines()):
        start = line.find('{"marks"')  # launchers put the rank before the line
        if start >= 0:
            return [Mark(*mark) for mark in json.loads(line[start:])["marks"]]
    raise ValueError(f"the loop told no marks:\n{output[-2000:]}")


def add_span(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``span_of`` reads, for the loops that the benchmarks start."""
    parser.add_argument("--warm-up", type=int, required=True, help="steps not counted")
    parser.add_argument("--steps", type=int, required=True, help="steps counted")


def span_of(options: argparse.Namespace) -> Span:
    """Return the span given by ``add_span``'s options."""
    return Span(options.warm_up, options.steps)


def span_flags(span: Span) -> list[object]:
    """Return ``add_span``'s options for ``span``."""
    return ["--warm-up", span.warm_up, "--steps", span.steps]
