"""The times of a window on all ranks: their spread, and what bounds the step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from hvd_utils.timing.stopwatch import PARTS
from hvd_utils.timing.stragglers import Straggler

BOUNDS = ("input", "compute", "network")  # the step is bound by, in the order of PARTS

# What of a step's event tells how long things took, and so differs between equal runs.
SPREADS = tuple(f"{part}_seconds" for part in PARTS)
SLOW = tuple(f"slow_{name}" for name in Straggler._fields)
FIELDS = (*SPREADS, "step_split", "bound_by", *SLOW)


class StepTimes(NamedTuple):
    """Seconds per step of each part, over the ranks; and who is slow for long."""

    spread: dict[str, list[float]]  # part: least, median, most
    split: dict[str, float]  # part: its share of the step, 0 to 1
    slow: Straggler | None  # the slowest of those that are slow for long

    def fields(self) -> dict[str, Any]:
        """Return what a step's event holds of this: the names in ``FIELDS``."""
        values: dict[str, Any] = dict(zip(SPREADS, self.spread.values(), strict=True))
        values |= {"step_split": self.split, "bound_by": bound_by(self.split)}
        if self.slow:
            values |= zip(SLOW, self.slow, strict=True)
        return values

    def scalars(self) -> dict[str, float]:
        """Return what TensorBoard shows of this."""
        values = {f"{part}_median": self.spread[part][1] for part in PARTS}
        return values | {f"{part}_max": self.spread[part][2] for part in PARTS}


def make_step_times(seconds: np.ndarray, slow: Straggler | None) -> StepTimes:
    """Return the timings of a window from all ranks' seconds per step, a row a rank, by part."""
    least, median, most = seconds.min(axis=0), np.median(seconds, axis=0), seconds.max(axis=0)
    spread = {
        part: [float(least[i]), float(median[i]), float(most[i])] for i, part in enumerate(PARTS)
    }
    return StepTimes(spread, split(seconds), slow)


def split(seconds: np.ndarray) -> dict[str, float]:
    """Return how a step divides into parts, 0 to 1 each, on the rank that the others wait for.

    That is the one that waits least in allreduce. What it waits is the network's; what the others
    wait beyond that is the time that this rank took to arrive.
    """
    critical = seconds[seconds[:, PARTS.index("allreduce")].argmin()]
    total = critical.sum() or 1.0
    return {part: round(float(critical[i] / total), 4) for i, part in enumerate(PARTS)}


def bound_by(split: dict[str, float]) -> str:
    """Return what bounds a step that divides so: its largest part.

    Waiting for data is ``input``, computing is ``compute``, and waiting in allreduce, on the rank
    that is the last to arrive there, is ``network``.
    """
    return BOUNDS[max(range(len(PARTS)), key=lambda i: split[PARTS[i]])]


def mean_split(splits: Iterable[dict[str, float]]) -> dict[str, float]:
    """Return the mean of several windows' splits, of which there is at least one."""
    found = list(splits)
    return {part: sum(each[part] for each in found) / len(found) for part in PARTS}


def split_text(split: dict[str, float]) -> str:
    """Return ``data 3 % compute 80 % allreduce 17 %``."""
    return " ".join(f"{part} {100 * split[part]:.0f} %" for part in PARTS)
