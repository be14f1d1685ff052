"""Reading a run's log of events, ``metrics.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.files import replace_text
from hvd_utils.run.event_fields import Fields, what_is_wrong

METRICS = "metrics.jsonl"
_NONE: Fields = {}
_PLACES: Fields = {"step": ("step",), "epoch": ("step", "epoch"), "bad_images": ("step", "epoch")}


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
