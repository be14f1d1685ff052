"""Checkpoint intervals: a number of steps, or seconds of wall time."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

_TEXT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")
_SECONDS = {"s": 1, "min": 60, "h": 3600}


@dataclass(frozen=True)
class Interval:
    """Either a number of steps or a time in seconds; the other is None."""

    steps: int | None = None
    seconds: float | None = None

    def due(self, step: int, last_step: int, now: float, last_time: float) -> bool:
        """Whether so much has passed since ``last_step`` and ``last_time`` (seconds)."""
        if self.steps is not None:
            return step - last_step >= self.steps
        return now - last_time >= self.seconds


def parse(text: str | int) -> Interval:
    """Return the interval that ``500``, ``500 steps``, ``90s``, ``10min`` or ``2h`` means.

    Raises ValueError saying what is wrong.
    """
    found = _TEXT.fullmatch(str(text).strip().lower())
    if not found:
        raise ValueError("give steps or a time, as 500, 500steps, 90s, 10min or 2h")
    number, unit = float(found[1]), found[2]
    if number == 0:
        raise ValueError("must be greater than 0")
    if unit in _SECONDS:
        return Interval(seconds=number * _SECONDS[unit])
    if unit not in ("", "step", "steps"):
        raise ValueError(f"no unit {unit}: give steps, s, min or h, as 500, 90s, 10min or 2h")
    if "." in found[1]:
        raise ValueError("the number of steps must be whole")
    return Interval(steps=int(found[1]))


class Timer:
    """Says when the next checkpoint is due, counted from the last one.

    Time is the monotonic clock's: setting the machine's clock changes nothing.
    """

    def __init__(self, interval: Interval, step: int) -> None:
        self._interval = interval
        self.done(step)

    def due(self, step: int) -> bool:
        """Whether a checkpoint should be saved after ``step`` updates."""
        return self._interval.due(step, self._last_step, time.monotonic(), self._last_time)

    def done(self, step: int) -> None:
        """Count from here: a checkpoint was saved after ``step`` updates."""
        self._last_step, self._last_time = step, time.monotonic()
