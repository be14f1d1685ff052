"""The run's directory: one writer of ``metrics.jsonl``, TensorBoard and the console, one reader."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hvd_utils.board import Board
from hvd_utils.event_fields import Fields, what_is_wrong
from hvd_utils.failure import RANK_VARIABLES, BadInput
from hvd_utils.measures import Errors, Window
from hvd_utils.progress_bar import tqdm
from hvd_utils.timings import split_text

METRICS = "metrics.jsonl"
_NONE: Fields = {}
_PLACES: Fields = {"step": ("step",), "epoch": ("step", "epoch"), "bad_images": ("step", "epoch")}
SHOWN = 5  # bad images by name on the console; all are in the metrics


def create_output(output: Path | None, recipe: str) -> Path:
    """Create and return the run's folder: ``output``, or a new one below ``runs/``.

    Raises BadInput if it cannot be written.
    """
    try:
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            if not os.access(output, os.W_OK | os.X_OK):
                raise PermissionError(0, "Permission denied")
            return output
        stem = f"{Path(recipe).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
        for attempt in range(100):
            folder = Path("runs") / (f"{stem}-{attempt}" if attempt else stem)
            try:
                folder.mkdir(parents=True)
                return folder
            except FileExistsError:
                continue
        raise FileExistsError(0, "too many runs in this second")
    except OSError as error:
        raise BadInput(
            f"cannot write to output folder {output or 'runs/'}: {error.strerror}; "
            "set --output to a folder that can be written"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a file whole; raise BadInput naming it if the disk will not take it."""
    try:
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise cannot_write(path, error) from error


def replace_text(path: Path, text: str) -> None:
    """Replace a file so that after a power cut either the old or the new one is there, whole.

    Raises BadInput naming it if the disk will not take it.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> BadInput:
    """Return the failure that names a file that could not be written, and why."""
    return BadInput(
        f"cannot write {path}: {error.strerror}; make room or choose another --output; "
        "the checkpoints saved before are intact"
    )


def read_events(run: Path, fields: Fields = _NONE) -> Iterator[dict[str, Any]]:
    """Yield the events of a run's ``metrics.jsonl``; a line still being written is left out.

    Raises BadInput if the file cannot be read or holds something else, and where an event has not
    the ``fields`` of its kind.
    """
    for number, event in _numbered(run):
        wrong = what_is_wrong(event, fields)
        if wrong:
            raise BadInput(f"{run / METRICS}, line {number}: {wrong}; mend or remove the file")
        yield event


def last_event(run: Path) -> str | None:
    """Return the kind of the last event of a run's log, None without one; its fields may be any."""
    kinds = [event["event"] for _, event in _numbered(run)] if (run / METRICS).exists() else []
    return kinds[-1] if kinds else None


def _numbered(run: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with (run / METRICS).open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    event = json.loads(line)
                except json.JSONDecodeError:
                    return
                except RecursionError:
                    event = None
                if not isinstance(event, dict) or not isinstance(event.get("event"), str):
                    raise BadInput(
                        f"{run / METRICS}, line {number}: not an event of a run; mend or remove it"
                    )
                yield number, event
    except UnicodeDecodeError as error:
        raise BadInput(f"{run / METRICS} is not a text in UTF-8: {error.reason}") from error
    except OSError as error:
        raise BadInput(f"cannot read {run / METRICS}: {error.strerror}") from error


def forget_after(run: Path, step: int, epoch: int) -> None:
    """Drop from ``metrics.jsonl`` what will be logged again after a checkpoint of this place.

    That is, what an interrupted run logged past ``step`` updates and ``epoch`` finished epochs, and
    a line about a window that is not over: each step shall be in the file once.
    """
    path = run / METRICS
    if not path.exists():
        return
    kept = [event for event in read_events(run, _PLACES) if _is_before(event, step, epoch)]
    replace_text(path, "".join(json.dumps(event) + "\n" for event in kept))


def _is_before(event: Mapping[str, Any], step: int, epoch: int) -> bool:
    if event.get("partial") or event.get("step", 0) > step:
        return False
    return event["event"] not in ("epoch", "bad_images") or event["epoch"] < epoch


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
            self._board = Board(run, step, self.say)
        except OSError as error:
            raise cannot_write(run / "tensorboard", error) from error
        looked_at = terminal()
        # Open for as long as the run.
        self._screen = Path(looked_at).open("w") if looked_at else sys.stdout  # noqa: SIM115
        self._bar = tqdm(
            total=total_steps,
            initial=step,
            unit="step",
            disable=looked_at is None,
            file=self._screen,
            dynamic_ncols=True,
        )

    def say(self, text: str) -> None:
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
            self.say(
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
        self.say(
            f"epoch {epoch + 1}/{self._epochs}  train loss {train_loss:.4f}  "
            f"val top-1 error {errors.top1:.2f} %  top-5 {errors.top5:.2f} %  "
            f"({errors.images} images)"
        )

    def bad_images(self, epoch: int, step: int, reasons: Mapping[str, str]) -> None:
        """Record which images were passed over so far; show a few of them."""
        self.write(
            "bad_images",
            epoch=epoch,
            step=step,
            count=len(reasons),
            images=dict(sorted(reasons.items())),
        )
        shown = [f"{image} ({reasons[image]})" for image in sorted(reasons)[:SHOWN]]
        more = "; all are in the metrics" if len(reasons) > SHOWN else ""
        self.say(
            f"epoch {epoch + 1}/{self._epochs}  bad images passed over so far: {len(reasons)}: "
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


def terminal() -> str | None:
    """Return the terminal on which somebody looks on, None where output goes to a file or pipe.

    Open MPI gives every rank a terminal of its own and passes on whole lines only, tagged under
    horovodrun. So the terminal that counts, and on which a bar can be drawn, is the launcher's.
    """
    if not any(name in os.environ for name in RANK_VARIABLES):
        return os.ttyname(1) if sys.stdout.isatty() else None
    try:
        shown_on = os.readlink(f"/proc/{os.getppid()}/fd/1")
    except OSError:
        return None
    return shown_on if shown_on.startswith(("/dev/pts/", "/dev/tty")) else None


def final_line(final_error: float | None, epochs: int) -> str:
    """Return a run's last line: the median top-1 error of its last 5 epochs (section 5.1)."""
    if final_error is None:
        return "done: no epoch was finished, so there is no validation error"
    last = min(5, epochs)
    which = f"the last {last} epochs" if last > 1 else "one epoch"
    return f"done: median top-1 error of {which}: {final_error:.2f} %"
