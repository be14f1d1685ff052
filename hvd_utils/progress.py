"""How far a run has come: what a checkpoint holds beside the weights."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from hvd_utils.measures import Window


@dataclass
class Progress:
    """Updates made, the current epoch's sums, and the validation errors so far."""

    step: int = 0
    epoch_steps: int = 0
    epoch_loss: float = 0.0  # sum over the epoch's steps
    epoch_seconds: float = 0.0  # of training
    top1_errors: list[float] = field(default_factory=list)  # percent, one an epoch

    @property
    def epoch(self) -> int:
        """The epoch that is under way, or the number of epochs if all are done."""
        return len(self.top1_errors)

    def add(self, window: Window) -> None:
        """Count the steps of a report."""
        self.step = window.step
        self.epoch_steps += window.steps
        self.epoch_loss += window.loss * window.steps
        self.epoch_seconds += window.seconds

    def finish_epoch(self, top1_error: float) -> None:
        """Close the epoch with its validation error in percent."""
        self.top1_errors.append(top1_error)
        self.epoch_steps, self.epoch_loss, self.epoch_seconds = 0, 0.0, 0.0

    def final_error(self) -> float | None:
        """Return the run's figure: the median top-1 error of its last 5 epochs (section 5.1)."""
        return statistics.median(self.top1_errors[-5:]) if self.top1_errors else None
