"""The horizontal axes of a report's pictures: epochs, and wall time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hvd_utils.report.series import Columns, RunData

UNITS = ((86400 * 3, 86400, "days"), (7200, 3600, "h"), (300, 60, "min"), (0, 1, "s"))


class Axis(NamedTuple):
    """A horizontal axis: its label and unit, and where an event or a step lies on it."""

    name: str
    label: str
    unit: str
    of: Callable[[RunData, Columns], np.ndarray]
    restart: Callable[[RunData], list[float]]


def course_axis(runs: Sequence[RunData]) -> Axis:
    """Return the axis of epochs, or of steps where a run's epoch is not known."""
    if all(run.steps_per_epoch for run in runs):
        return Axis(
            "epochs", "epochs", "epoch",
            lambda run, events: events["step"] / run.steps_per_epoch,
            lambda run: [launch.step / run.steps_per_epoch for launch in run.restarts],
        )  # fmt: skip
    return Axis(
        "steps", "steps", "step",
        lambda run, events: events["step"],
        lambda run: [launch.step for launch in run.restarts],
    )  # fmt: skip


def clock_axis(runs: Sequence[RunData]) -> Axis:
    """Return the axis of time in training, without the pauses between launches."""
    most = max(float(run.seconds[-1]) for run in runs)
    _, length, unit = next(each for each in UNITS if most >= each[0])
    return Axis(
        "time", f"time in training, {unit}", unit,
        lambda run, events: events.seconds / length,
        lambda run: [launch.seconds / length for launch in run.restarts],
    )  # fmt: skip
