"""Pictures of speed: throughput, the parts of a step, and stragglers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hvd_utils.report import panel
from hvd_utils.report.axes import Axis
from hvd_utils.report.drawing import close, colour_of, dot, label, last_values, shorten, start
from hvd_utils.report.panel import Panel, new_panel
from hvd_utils.report.series import RunData, thin
from hvd_utils.timing.stopwatch import PARTS
from hvd_utils.timing.stragglers import DOING, SLOWER

PART_COLOURS = dict(zip(PARTS, (panel.DATA, panel.COMPUTE, panel.ALLREDUCE), strict=True))
SPELLS = 8  # most spells of slow ranks
SMOOTH = 80  # points of a line: single windows are noisy


def throughput(runs: Sequence[RunData], axis: Axis) -> Panel:
    """Images a second, of all processes together."""
    note = "All processes together, validation not counted."
    shown = start("throughput", "Throughput", note, axis, "images/s")
    for run in runs:
        colour, dashes = colour_of(run, runs)
        x, y = thin(SMOOTH, axis.of(run, run.steps), run.steps["images_per_second"])
        shown.axes.plot(x, y, color=colour, linestyle=dashes, marker=dot(x), lw=1.3)
        shown.add(label(run, runs, "throughput"), colour, x, y, " images/s")
        shown.end_label(x, y, label(run, runs), colour)
    shown.axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    shown.axes.set_ylim(0, 1.1 * max(np.nanmax(line.y) for line in shown.lines))
    shown.summary = last_values(runs, "images/s", lambda run: run.images_per_second, "{:,.0f}")
    return close(shown, runs, axis, bottom=0)


def split_course(run: RunData, axis: Axis) -> Panel | None:
    """How a step divides into reading, computing and waiting for others, over the run."""
    if run.split is None:
        return None
    note = "On the rank that the others wait for."
    shown = start("split", "Where a step's time goes", note, axis, "% of the step")
    known = ~np.isnan(run.steps.split[:, 0])
    x, *parts = thin(SMOOTH, axis.of(run, run.steps)[known], *(100 * run.steps.split[known]).T)
    shown.axes.stackplot(x, *parts, colors=PART_COLOURS.values(), alpha=0.85, lw=0)
    for part, share in zip(PARTS, parts, strict=True):
        shown.add(part, PART_COLOURS[part], x, share, " %")
    below = 0.0
    for part, share in zip(PARTS, 100 * run.split, strict=True):
        # The mean's place: the right edge itself may be an outlier.
        shown.end_label([x[-1]], [below + share / 2], part, PART_COLOURS[part])
        below += share
    shown.axes.set_ylim(0, 100)
    shown.axes.set_xlim(x[0], x[-1] if x[-1] > x[0] else x[0] + 1)
    shown.summary = _split_words(run)
    return shown


def split_bars(runs: Sequence[RunData]) -> Panel | None:
    """How a step divides, a bar a run."""
    measured = [run for run in runs if run.split is not None]
    if not measured:
        return None
    note = "Mean over the run, on the rank that the others wait for."
    shown = new_panel("split", "Where a step's time goes", note, "% of the step", "")
    places = np.arange(len(measured))
    left = np.zeros(len(measured))
    for n, part in enumerate(PARTS):
        share = np.array([100 * run.split[n] for run in measured])
        shown.axes.barh(places, share, left=left, color=PART_COLOURS[part], alpha=0.85, height=0.62)
        for place, begin, width in zip(places, left, share, strict=True):
            if width >= 9:
                shown.axes.text(
                    begin + width / 2, float(place), f"{width:.0f}", color="#ffffff", ha="center",
                    va="center", fontsize=8.5,
                )  # fmt: skip
        left += share
    for n, part in enumerate(PARTS):
        shown.axes.text(
            (0, 0.5, 1)[n], 1.03, part, transform=shown.axes.transAxes, weight="bold",
            ha=("left", "center", "right")[n], color=PART_COLOURS[part],
        )  # fmt: skip
    shown.axes.set_yticks(places, [run.tag for run in measured], color=panel.INK, weight="bold")
    shown.axes.set(xlim=(0, 100), ylim=(len(measured) - 0.4, -0.6))
    shown.axes.grid(visible=False)
    shown.summary = "; ".join(f"{run.tag}: {_split_words(run)}" for run in measured)
    return shown


def spread(run: RunData, axis: Axis) -> Panel | None:
    """Seconds of a step over the ranks."""
    if run.split is None:
        return None
    note = "Median over the ranks; the band reaches from the quickest to the slowest rank."
    shown = start("ranks", "A step on all ranks", note, axis, "ms")
    x = axis.of(run, run.steps)
    for part in PARTS:
        least, median, most = 1000 * run.steps.spread(part).T
        at, low, middle, high = thin(SMOOTH, x, least, median, most)
        shown.axes.fill_between(at, low, high, color=PART_COLOURS[part], alpha=0.25, lw=0)
        shown.axes.plot(at, middle, color=PART_COLOURS[part], lw=1.3)
        shown.add(f"{part}, median", PART_COLOURS[part], at, middle, " ms")
        shown.add(f"{part}, slowest", PART_COLOURS[part], at, high, " ms")
        shown.end_label(at, middle, part, PART_COLOURS[part])
    top = np.nanpercentile(np.concatenate([line.y for line in shown.lines]), 99)
    shown.axes.set_ylim(0, 1.15 * top)
    return close(shown, [run], axis, bottom=0)


def slow_ranks(runs: Sequence[RunData], axis: Axis) -> Panel | None:
    """When which rank was slow for long."""
    found = [(run, spell) for run in runs for spell in run.slow]
    if not found:
        return None
    found = sorted(found, key=lambda pair: -pair[1].ratio)[:SPELLS]
    note = "Straggler for long: their own time in a step, by the median rank's."
    shown = start("slow", "Straggler ranks", note, axis, "times the median")
    shown.axes.axhline(SLOWER, color=panel.PAPER, lw=1, ls=(0, (5, 3)))
    for run, spell in found:
        colour, _ = colour_of(run, runs)
        scale = run.steps_per_epoch if axis.name == "epochs" else 1
        first, last = spell.first / scale, spell.last / scale
        shown.axes.hlines(spell.ratio, first, last, color=colour, lw=5)
        shown.add(f"rank {spell.rank}", colour, [first, last], [spell.ratio] * 2)
        middle = (first + last) / 2
        late = middle > 0.7 * max(axis.of(run, run.steps))
        words = f"rank {spell.rank} ({shorten(spell.host, 20)}), {DOING[spell.at]}"
        shown.axes.annotate(
            label(run, runs, words), (last if late else first, spell.ratio), (0, 5),
            textcoords="offset points", fontsize=8.5, ha="right" if late else "left",
        )  # fmt: skip
    longest = max(axis.of(run, run.steps)[-1] for run in runs)
    most = found[0][1].ratio
    shown.axes.set(xlim=(0, longest), ylim=(1, most + 0.15 * (most - 1) + 0.05))
    shown.summary = "; ".join(f"rank {s.rank} on {s.host}: {s.ratio:.1f} times" for _, s in found)
    shown.x_unit = ""  # all is labelled: nothing to read out
    return shown


def _split_words(run: RunData) -> str:
    shares = zip(PARTS, run.split, strict=True)
    return ", ".join(f"{part} {100 * share:.0f} %" for part, share in shares)
