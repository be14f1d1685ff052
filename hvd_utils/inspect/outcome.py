"""What the runs of one setting came to, read from their folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hvd_utils.inspect.final import mean_and_std, read_result
from hvd_utils.run.event_log import read_events


@dataclass(frozen=True)
class Curve:
    """Errors at the end of each epoch, percent: of training over the epoch, and of validation."""

    train: tuple[float, ...]
    val: tuple[float, ...]


@dataclass(frozen=True)
class Outcome:
    """The finished runs of one setting, by seed: median errors of the last 5 epochs, and curves."""

    errors: Mapping[int, float]
    curves: Mapping[int, Curve]

    @property
    def mean(self) -> float:
        """Mean error over the seeds, percent."""
        return mean_and_std([*self.errors.values()])[0]

    @property
    def std(self) -> float | None:
        """Standard deviation over the seeds; None of one."""
        return mean_and_std([*self.errors.values()])[1]

    def train_curve(self) -> list[tuple[float, float]]:
        """Return mean and standard deviation (0 of one seed) of the training error by epoch."""
        return _by_epoch([curve.train for curve in self.curves.values()])

    def val_curve(self) -> list[tuple[float, float]]:
        """Return the same of the validation error."""
        return _by_epoch([curve.val for curve in self.curves.values()])

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + (f" ± {self.std:.2f}" if self.std is not None else "")


def read_outcome(runs: Mapping[int, Path]) -> Outcome:
    """Return what the finished ``runs``, by seed, came to."""
    errors = {seed: read_result(run).final_error for seed, run in runs.items()}
    return Outcome(errors, {seed: read_curve(run) for seed, run in runs.items()})


def read_curve(run: Path) -> Curve:
    """Return a run's curve. An epoch's training error is the mean over its images as they came."""
    events = list(read_events(run))
    windows: dict[int, list[tuple[int, float]]] = {}  # by epoch: steps, error
    before = 0
    for event in events:
        if event["event"] == "step":
            steps = event["step"] - before
            windows.setdefault(event["epoch"], []).append((steps, event["train_top1_error"]))
            before = event["step"]
    train = tuple(_weighted_mean(windows[epoch]) for epoch in sorted(windows))
    val = tuple(event["val_top1_error"] for event in events if event["event"] == "epoch")
    return Curve(train, val)


def _by_epoch(curves: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    epochs = zip(*curves, strict=True)
    return [(mean, std or 0.0) for mean, std in map(mean_and_std, epochs)]


def _weighted_mean(pairs: Sequence[tuple[int, float]]) -> float:
    total = sum(weight for weight, _ in pairs)
    return sum(weight * value for weight, value in pairs) / total
