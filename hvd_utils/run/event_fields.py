"""What each event of a run's log has; for readers of logs that came from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Fields = Mapping[str, Sequence[str]]  # of each kind of event

_PLACE = ("time", "step")
ALL: Fields = {
    "start": (*_PLACE, "total_steps", "epochs", "workers", "minibatch", "processes", "hosts"),
    "step": (*_PLACE, "loss", "lr", "images_per_second"),
    "epoch": (*_PLACE, "epoch", "val_top1_error", "val_top5_error", "val_images"),
    "end": _PLACE,
}
OTHERS = ("time",)  # of events that are not named there
_NEWER = {"total_steps", "epochs", "train_top1_error", "val_images"}  # which older logs do not have
_PARTS = ("data", "compute")  # where a rank can be slow
_WHOLE = {"step", "total_steps", "epochs", "epoch", "workers", "minibatch", "processes"}


def what_is_wrong(event: Mapping[str, Any], fields: Fields) -> str | None:
    """Return which of its ``fields`` an event lacks or has of another kind; None if none."""
    names = fields.get(event["event"], OTHERS if fields is ALL else ())
    optional = _NEWER if fields is ALL else ()
    there = (name for name in names if name in event or name not in optional)
    wrong = [name for name in there if not _is_right(name, event.get(name))]
    wrong += [name for name in (event if fields is ALL else ()) if not _is_known(name, event[name])]
    if event["event"] == "end" and fields is ALL and "median_top1_error" not in event:
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
