"""The progress of a run: what a checkpoint holds beside the weights."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Progress:
    """Updates made, sums of the window under way and of the epoch, and the errors so far.

    A window is what one line of the log covers. Its sums are part of a checkpoint, so that a run
    that resumes in the middle of a window logs the same line as an undisturbed one.
    """

    step: int = 0
    lr: float = 0.0  # of the last update
    window_steps: int = 0
    window_loss: float = 0.0  # sum over the window's steps
    window_wrong: float = 0.0  # images
    epoch_steps: int = 0  # up to the window under way
    epoch_loss: float = 0.0  # sum over those steps
    top1_errors: list[float] = field(default_factory=list)  # percent, one an epoch

    @property
    def epoch(self) -> int:
        """The epoch that is under way, or the number of epochs if all are done."""
        return len(self.top1_errors)

    def check(self, epoch_ends: Sequence[int]) -> None:
        """Raise ValueError or TypeError unless this can be: numbers, and a step of its epoch.

        ``epoch_ends`` are the steps at which epochs end.
        """
        numbers = [self.lr, self.window_loss, self.window_wrong, self.epoch_loss, *self.top1_errors]
        if not all(isinstance(number, float) for number in numbers):
            raise TypeError("progress that is not in numbers")
        counts = (self.step, self.window_steps, self.epoch_steps)
        if not isinstance(self.top1_errors, list) or not all(isinstance(n, int) for n in counts):
            raise TypeError("progress that is not in whole steps")
        begin = epoch_ends[self.epoch - 1] if 0 < self.epoch <= len(epoch_ends) else 0
        end = epoch_ends[self.epoch] if self.epoch < len(epoch_ends) else self.step
        if not begin <= self.step <= end:
            raise ValueError(f"step {self.step}, which is not of epoch {self.epoch + 1}")

    def close_window(self) -> None:
        """Count the window that has just been logged in the epoch, and begin a new one."""
        self.epoch_steps += self.window_steps
        self.epoch_loss += self.window_loss
        self.window_steps, self.window_loss, self.window_wrong = 0, 0.0, 0.0

    def finish_epoch(self, top1_error: float) -> None:
        """Close the epoch with its validation error in percent."""
        self.top1_errors.append(top1_error)
        self.epoch_steps, self.epoch_loss = 0, 0.0

    @property
    def is_best(self) -> bool:
        """Whether the epoch that was finished last has the lowest error so far."""
        return bool(self.top1_errors) and self.top1_errors[-1] <= min(self.top1_errors)

    def final_error(self) -> float | None:
        """Return the run's figure: the median top-1 error of its last 5 epochs (section 5.1)."""
        return statistics.median(self.top1_errors[-5:]) if self.top1_errors else None
