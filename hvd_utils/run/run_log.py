"""The log of a run: ``metrics.jsonl``, TensorBoard and the console."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hvd_utils.cli.files import cannot_write, replace_text
from hvd_utils.cli.progress_bar import open_terminal, tqdm
from hvd_utils.run.event_log import METRICS
from hvd_utils.timing.step_times import split_text
from hvd_utils.trackers.tensorboard import TensorBoard
from hvd_utils.training.metrics import Errors, Window

SHOWN = 5  # bad images by name on the console
LOGGED = 100  # and in each epoch's event
LISTED = 10_000  # and in the file, of all launches
BAD_IMAGES = "bad-images.txt"  # in a run's folder: those that were passed over
MORE = re.compile(r"\.\.\. and ([\d,]+) more")  # its last line, where it does not name all


class RunLog:
    """Writes the events of a run and shows them: a progress bar on a terminal, else lines."""

    def __init__(self, run: Path, *, step: int, total_steps: int, epochs: int) -> None:
        self._path = run / METRICS
        self._epochs = epochs
        self._total = total_steps
        self._began, self._first = time.monotonic(), step
        try:
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise cannot_write(self._path, error) from error
        try:
            self._board = TensorBoard(run, step, self.print_line)
        except OSError as error:
            raise cannot_write(run / "tensorboard", error) from error
        looked_at = open_terminal()  # for as long as the run
        self._screen = looked_at or sys.stdout
        self._bar = tqdm(
            total=total_steps,
            initial=step,
            unit="step",
            disable=not looked_at,
            file=self._screen,
            dynamic_ncols=True,
        )

    def print_line(self, text: str) -> None:
        """Show a line to the user, if the screen is still there: a run does not end with it."""
        with contextlib.suppress(OSError):
            self._bar.write(text, file=self._screen)
            self._screen.flush()

    @property
    def removed(self) -> bool:
        """Whether the file was removed behind the run's back, so that its lines go nowhere."""
        return os.fstat(self._file.fileno()).st_nlink == 0

    def write(self, event: str, **values: Any) -> None:
        """Append one JSON object to ``metrics.jsonl``; raise BadInput if that fails."""
        try:
            self._file.write(json.dumps({"event": event, "time": time.time(), **values}) + "\n")
            self._file.flush()
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def step(self, window: Window, epoch: int, partial: bool = False) -> None:
        """Record a window of training, ``partial`` where the launch ends in the middle of it."""
        self.write(
            "step",
            step=window.step,
            epoch=epoch,
            lr=window.lr,
            loss=window.loss,
            train_top1_error=window.top1_error,
            images_per_second=window.images_per_second,
            **window.scaling,
            **(window.timings.fields() if window.timings else {}),
            **({"partial": True} if partial else {}),
        )
        self._board.scalars(
            window.step,
            "train",
            loss=window.loss,
            lr=window.lr,
            top1_error=window.top1_error,
            images_per_second=window.images_per_second,
        )
        if window.timings:
            self._board.scalars(window.step, "time", **window.timings.scalars())
        with contextlib.suppress(OSError):
            self._bar.update(window.step - self._bar.n)
        numbers = (
            f"loss {window.loss:.4f}  lr {window.lr:.4g}  {window.images_per_second:.0f} img/s"
        )
        split = f"  {split_text(window.timings.split)}" if window.timings else ""
        if self._bar.disable:
            self.print_line(
                f"epoch {epoch + 1}/{self._epochs}  step {window.step}/{self._total}  {numbers}"
                f"  left {self._time_left(window.step)}{split}"
            )
        else:
            with contextlib.suppress(OSError):
                self._bar.set_postfix_str(numbers + split)

    def epoch(
        self,
        epoch: int,
        step: int,
        train_loss: float,
        errors: Errors,
        lr: float,
        images_per_second: float,
    ) -> None:
        """Record an epoch and its validation."""
        self.write(
            "epoch",
            epoch=epoch,
            step=step,
            train_loss=train_loss,
            val_top1_error=errors.top1,
            val_top5_error=errors.top5,
            val_images=errors.images,
            lr=lr,
            images_per_second=images_per_second,
        )
        self._board.scalars(step, "val", top1_error=errors.top1, top5_error=errors.top5)
        self._board.flush()
        self.print_line(
            f"epoch {epoch + 1}/{self._epochs}  train loss {train_loss:.4f}  "
            f"val top-1 error {errors.top1:.2f} %  top-5 {errors.top5:.2f} %  "
            f"({errors.images} images)"
        )

    def bad_images(self, epoch: int, step: int, total: int, named: Mapping[str, str]) -> None:
        """Record how many images were passed over so far, and the first; show a few of them."""
        reasons = dict([*named.items()][:LOGGED])
        self.write(
            "bad_images",
            epoch=epoch,
            step=step,
            count=total,
            images=dict(sorted(reasons.items())),
        )
        shown = [f"{image} ({reasons[image]})" for image in sorted(reasons)[:SHOWN]]
        more = f"; see {BAD_IMAGES}" if total > SHOWN else ""
        self.print_line(
            f"epoch {epoch + 1}/{self._epochs}  bad images passed over so far: {total}: "
            f"{', '.join(shown)}{more}"
        )

    def close(self) -> None:
        """End the bar and flush what TensorBoard still holds."""
        with contextlib.suppress(OSError):
            self._bar.close()
        self._board.close()
        self._file.close()

    def _time_left(self, step: int) -> str:
        pace = (time.monotonic() - self._began) / max(1, step - self._first)
        return tqdm.format_interval(round(pace * (self._total - step)))


def list_bad_images(path: Path, total: int, named: Mapping[str, str]) -> None:
    """Add to the list of bad images in a run's folder those that were ``named``, with their reason.

    It keeps what earlier launches found, and names at most ``LISTED``. ``total`` were found by this
    launch; the list counts at least as many. Raises BadInput where it cannot be written.
    """
    lines, more = [], 0
    with contextlib.suppress(OSError):
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")[:-1]
    if lines and (beyond := MORE.fullmatch(lines[-1])):
        more = int(beyond[1].replace(",", ""))
        lines.pop()
    found = (_one_line(f"{image}: {reason}") for image, reason in named.items())
    every = dict.fromkeys([*lines, *found])
    total = max(total, len(lines) + more, len(every))
    listed = sorted([*every][:LISTED])
    if total > len(listed):
        listed.append(f"... and {total - len(listed):,} more")
    replace_text(path, "\n".join(listed) + "\n")


def _one_line(text: str) -> str:
    """Return a text in which the ends of lines, which names of files may have, are written out."""
    return text.replace("\n", "\\n").replace("\r", "\\r")


def final_line(final_error: float | None, epochs: int) -> str:
    """Return a run's last line: the median top-1 error of its last 5 epochs (section 5.1)."""
    if final_error is None:
        return "done: no epoch was finished, so there is no validation error"
    last = min(5, epochs)
    which = f"the last {last} epochs" if last > 1 else "one epoch"
    return f"done: median top-1 error of {which}: {final_error:.2f} %"
