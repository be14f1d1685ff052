"""What the pictures of a report share: start, colours, names, marks of restarts, end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hvd_utils.report.axes import Axis
from hvd_utils.report.panel import Panel, new_panel, run_colour
from hvd_utils.report.series import RunData


def colour_of(run: RunData, runs: Sequence[RunData]) -> tuple[str, object]:
    """Return colour and dashes of a run.

    Runs have each their own, unless some of several groups hold more than one: then a group has.
    """
    groups = {each.group for each in runs}
    if 1 < len(groups) < len(runs):
        return run_colour(run.group)
    return run_colour(list(runs).index(run))


def start(name: str, title: str, note: str, axis: Axis, unit: str = "") -> Panel:
    """Return an empty picture over ``axis``, whose values have this unit."""
    shown = new_panel(name, title, note, axis.label, axis.unit)
    if unit:
        shown.axes.set_ylabel(unit)
    return shown


def close(shown: Panel, runs: Sequence[RunData], axis: Axis, bottom: float | None = None) -> Panel:
    """Mark restarts, set the axes' limits and list the runs for a key."""
    left = shown.axes.get_xlim()[0] if shown.name == "error-end" else 0
    for run in runs:
        colour, dashes = colour_of(run, runs)
        for place in axis.restart(run):
            if place >= left:
                shown.axes.axvline(place, color=colour, lw=0.9, ls=(0, (1, 2)), alpha=0.9)
                shown.axes.plot(
                    [place], [0.015], "^", color=colour, ms=5, clip_on=False,
                    transform=shown.axes.get_xaxis_transform(),
                )  # fmt: skip
        if len(runs) > 1:
            shown.keys.append((f"{run.tag}  {shorten(run.name, 30)}", colour, dashes))
    if bottom is not None:
        shown.axes.set_ylim(bottom=bottom)
    furthest = max(float(line.x[-1]) for line in shown.lines if len(line.x))
    shown.axes.set_xlim(left, furthest if furthest > left else left + 1)
    return shown


def label(run: RunData, runs: Sequence[RunData], word: str = "") -> str:
    """Return a run's letter and a word for its line; of a single run the word alone."""
    if len(runs) == 1:
        return word
    return f"{run.tag} {word}".strip()


def last_values(
    runs: Sequence[RunData], word: str, value: Callable[[RunData], float], form: str
) -> str:
    """Return in words where each run stands, its value written as ``form``."""
    return "; ".join(
        f"{label(run, runs)} last {word} {form.format(value(run))}".strip() for run in runs
    )


def dot(x: np.ndarray, few: int = 1) -> str | None:
    """Return the marker of a line of few points, which alone would not be seen."""
    return "o" if len(x) <= few else None


def shorten(text: str, most: int) -> str:
    """Return a text of at most so many characters, without its middle where it is longer."""
    if len(text) <= most:
        return text
    kept = most - 1
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
