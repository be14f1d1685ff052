"""Read the event log of a run, ``metrics.jsonl``; its content is not trusted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.files import replace_text

METRICS = "metrics.jsonl"

Fields = Mapping[str, Sequence[str]]  # of each kind of event

_PLACE = ("time", "step")
ALL_FIELDS: Fields = {
    "start": (*_PLACE, "total_steps", "epochs", "workers", "minibatch", "processes", "hosts"),
    "step": (*_PLACE, "loss", "lr", "images_per_second"),
    "epoch": (*_PLACE, "epoch", "val_top1_error", "val_top5_error", "val_images"),
    "end": _PLACE,
}
_OTHERS = ("time",)  # the fields of every other event
_OPTIONAL = {"total_steps", "epochs", "train_top1_error", "val_images"}  # old logs lack them
_PARTS = ("data", "compute")  # where a rank can be slow
_WHOLE = {"step", "total_steps", "epochs", "epoch", "workers", "minibatch", "processes"}

_NONE: Fields = {}
_PLACES: Fields = {"step": ("step",), "epoch": ("step", "epoch"), "bad_images": ("step", "epoch")}


def read_events(run: Path, fields: Fields = _NONE) -> Iterator[dict[str, Any]]:
    """Yield the events of a run's ``metrics.jsonl``; a line that is still being written is skipped.

    Raises BadInput if the file cannot be read or holds something else, and where an event has not
    the ``fields`` of its kind.
    """
    for number, event in _numbered(run):
        wrong = what_is_wrong(event, fields)
        if wrong:
            raise BadInput(f"{run / METRICS}, line {number}: {wrong}; mend or remove the file")
        yield event


class EventReader:
    """Reads a log that grows: ``new`` returns the events since the last time."""

    def __init__(self, run: Path) -> None:
        self._path = run / METRICS
        self._offset = self._lines = 0
        self.last: str | None = None  # kind of the last event so far

    def new(self) -> list[dict[str, Any]]:
        """Return what was added; a line that is still being written comes the next time.

        Raises BadInput if the file cannot be read or holds something else.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                lines = [line for line in file if line.endswith(b"\n")]
        except OSError as error:
            raise BadInput(f"cannot read {self._path}: {error.strerror}") from error
        self._offset += sum(map(len, lines))
        return [self._checked(line) for line in lines]

    def _checked(self, line: bytes) -> dict[str, Any]:
        self._lines += 1
        try:
            event = json.loads(line)
            wrong = what_is_wrong(event, ALL_FIELDS)
        except (ValueError, RecursionError, TypeError, KeyError):
            wrong = "not an event of a run"
        if wrong:
            raise BadInput(f"{self._path}, line {self._lines}: {wrong}; mend or remove the file")
        self.last = event["event"]
        return event


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


def what_is_wrong(event: Mapping[str, Any], fields: Fields) -> str | None:
    """Return which of its ``fields`` an event lacks or has of another kind; None if none."""
    names = fields.get(event["event"], _OTHERS if fields is ALL_FIELDS else ())
    optional = _OPTIONAL if fields is ALL_FIELDS else ()
    there = (name for name in names if name in event or name not in optional)
    wrong = [name for name in there if not _is_right(name, event.get(name))]
    wrong += [
        name for name in (event if fields is ALL_FIELDS else ()) if not _is_known(name, event[name])
    ]
    if event["event"] == "end" and fields is ALL_FIELDS and "median_top1_error" not in event:
        wrong.append("median_top1_error")
    return f"an event '{event['event']}' without a right '{wrong[0]}'" if wrong else None


def _is_right(name: str, value: Any) -> bool:
    if name == "hosts":
        return isinstance(value, Mapping)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return name not in _WHOLE or isinstance(value, int)


def _is_known(name: str, value: Any) -> bool:
    """Whether a field that an event may have is of its kind."""
    if name in ("loss", "lr", "train_top1_error", "val_images"):
        return isinstance(value, (int, float))
    if name == "step_split":
        return isinstance(value, Mapping)
    if name == "slow_at":
        return value in _PARTS
    if name in ("data_seconds", "compute_seconds", "allreduce_seconds"):
        return isinstance(value, list) and all(isinstance(n, (int, float)) for n in value)
    return True
