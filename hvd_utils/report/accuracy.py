"""Pictures of accuracy: loss, error, learning rate, and error by minibatch."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import NullFormatter

from hvd_utils.inspect.final import by_settings, mean_and_std
from hvd_utils.paper.results import BY_MINIBATCH, Reference
from hvd_utils.report import panel
from hvd_utils.report.axes import Axis
from hvd_utils.report.drawing import close, colour_of, dot, label, last_values, start
from hvd_utils.report.panel import Panel, new_panel
from hvd_utils.report.series import RunData, envelope, points_of_each, thin

TRAINING_ALPHA = 0.45
REFERENCES = 3  # most of the paper's figures that are labelled


def loss(runs: Sequence[RunData], axis: Axis) -> Panel:
    """Training loss."""
    note = "Mean over the images since the line before."
    if len(runs) == 1 and len(runs[0].steps) > points_of_each(1):
        note += " The band holds the least and the most."
    shown = start(f"loss-{axis.name}", f"Training loss over {axis.name}", note, axis)
    for run in runs:
        colour, dashes = colour_of(run, runs)
        points = points_of_each(len(runs))
        x, y = thin(points, axis.of(run, run.steps), run.steps["loss"])
        shown.axes.plot(x, y, color=colour, linestyle=dashes, marker=dot(x))
        if len(runs) == 1 and len(run.steps) > points:
            shown.axes.fill_between(
                x, *envelope(points, run.steps["loss"]), color=colour, alpha=0.18, lw=0
            )
        shown.add(label(run, runs, "loss"), colour, x, y)
        shown.end_label(x, y, label(run, runs), colour)
    shown.summary = last_values(runs, "loss", lambda run: run.steps["loss"][-1], "{:.4g}")
    return close(shown, runs, axis, bottom=0)


def errors(runs: Sequence[RunData], axis: Axis) -> Panel:
    """Top-1 error: training and validation."""
    note = "Solid: validation, after each epoch. Pale: training, on the augmented images."
    shown = start(f"error-{axis.name}", f"Top-1 error over {axis.name}", note, axis, "%")
    for run in runs:
        colour, dashes = colour_of(run, runs)
        points = points_of_each(2 * len(runs))
        x, y = thin(points, axis.of(run, run.steps), run.steps["train_top1_error"])
        shown.axes.plot(x, y, color=colour, ls=dashes, marker=dot(x), alpha=TRAINING_ALPHA, lw=1.1)
        shown.add(label(run, runs, "training"), colour, x, y, " %")
        shown.end_label(x, y, "train" if len(runs) == 1 else "", colour)
        _validation(shown, run, runs, axis)
    shown.axes.set_ylim(0, min(100, shown.axes.get_ylim()[1]))
    _references(shown, runs)
    shown.summary = _error_summary(runs)
    return close(shown, runs, axis, bottom=0)


def end_of_errors(runs: Sequence[RunData], axis: Axis) -> Panel | None:
    """The last third of the validation errors, where runs differ by little."""
    longest = max(len(run.epochs) for run in runs)
    if longest < 6:
        return None
    note = (
        "The last third, enlarged; dots: the last 5 epochs, whose median (short line) is a "
        "run's figure."
    )
    shown = start("error-end", "Validation error at the end", note, axis, "%")
    ends = [axis.of(run, run.epochs)[-1] for run in runs if len(run.epochs)]
    begin = min(max(ends) * 2 / 3, max(ends) - 5)
    lowest, highest = [], []
    for run in runs:
        if not len(run.epochs):
            continue
        colour, dashes = colour_of(run, runs)
        x, y = axis.of(run, run.epochs), run.epochs["val_top1_error"]
        last = slice(max(0, len(x) - 5), None)
        shown.axes.plot(x, y, color=colour, linestyle=dashes, lw=1.3)
        shown.axes.plot(x[last], y[last], "o", color=colour, ms=3.5)
        shown.axes.hlines(
            run.result.final_error, x[last][0], x[-1], color=colour, lw=3.2, alpha=0.35
        )
        shown.add(label(run, runs, "validation"), colour, x, y, " %")
        within = y[x >= begin]
        if len(within):
            shown.end_label(x, y, label(run, runs), colour)
            lowest.append(within.min())
            highest.append(np.sort(within)[math.ceil(0.95 * (len(within) - 1))])
    shown.axes.set_xlim(begin, max(ends))
    paper = [run.reference.error for run in runs if run.reference]
    low, high = min(lowest + paper), max(highest + paper)
    margin = max(0.12 * (high - low), 0.1)
    shown.axes.set_ylim(max(0, low - margin), high + margin)
    _references(shown, runs)
    shown.summary = _error_summary(runs)
    return close(shown, runs, axis)


def rates(runs: Sequence[RunData], axis: Axis) -> Panel:
    """The learning rate."""
    rates_of_all = np.concatenate([run.steps["lr"] for run in runs])
    logarithmic = rates_of_all.max() > 10 * rates_of_all.min() > 0
    note = "As the last step of each line used it" + ("; logarithmic." if logarithmic else ".")
    shown = start("rate", "Learning rate", note, axis)
    if logarithmic:
        shown.axes.set_yscale("log")
        shown.axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        shown.axes.yaxis.set_minor_formatter(NullFormatter())
    for run in runs:
        colour, dashes = colour_of(run, runs)
        x, y = axis.of(run, run.steps), run.steps["lr"]
        every = np.unique(np.linspace(0, len(x) - 1, points_of_each(len(runs))).astype(int))
        shown.axes.plot(x[every], y[every], color=colour, linestyle=dashes, marker=dot(x))
        shown.add(label(run, runs, "rate"), colour, x[every], y[every])
        shown.end_label(x[every], y[every], label(run, runs), colour)
    shown.summary = last_values(runs, "rate", lambda run: run.steps["lr"][-1], "{:.4g}")
    return close(shown, runs, axis, bottom=None if logarithmic else 0)


def by_minibatch(runs: Sequence[RunData]) -> Panel | None:
    """Final error against the minibatch, as the paper's Figure 1; where runs differ in it."""
    points = _largest_family(runs)
    if len({run.minibatch for run, *_ in points}) < 2:
        return None
    note = "Final figures; bars: two standard deviations over seeds."
    shown = new_panel("minibatch", "Error by minibatch size", note, "images in a step, kn", "kn")
    shown.axes.set_ylabel("%")
    for run, mean, std in points:
        colour, _ = colour_of(run, runs)
        shown.axes.errorbar(run.minibatch, mean, 2 * std, fmt="o", color=colour, ms=6, capsize=3)
        tags = ", ".join(each.tag for each in runs if each.group == run.group)
        shown.axes.annotate(
            tags, (run.minibatch, mean), (6, 6), textcoords="offset points", color=colour,
            weight="bold",
        )  # fmt: skip
        shown.add(tags, colour, [run.minibatch], [mean], " %")
    if any(run.reference for run, *_ in points):
        sizes, paper = list(BY_MINIBATCH), list(BY_MINIBATCH.values())
        shown.axes.plot(sizes, [p.error for p in paper], color=panel.PAPER, lw=1, zorder=1)
        shown.axes.errorbar(
            sizes, [p.error for p in paper], [2 * p.std for p in paper], fmt=".",
            color=panel.PAPER, capsize=2, lw=1, zorder=1,
        )  # fmt: skip
        shown.axes.annotate(
            "paper", (sizes[-1], paper[-1].error), (-6, 0), textcoords="offset points",
            color=panel.PAPER, ha="right", va="center",
        )  # fmt: skip
        shown.add("paper", panel.PAPER, sizes, [p.error for p in paper], " %")
    sizes = sorted({int(x) for line in shown.lines for x in line.x})
    shown.axes.set_xscale("log", base=2)
    shown.axes.set_xticks(sizes, [_thousands(size) for size in sizes], minor=False)
    shown.axes.tick_params(axis="x", labelrotation=45 if len(sizes) > 7 else 0)
    shown.axes.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.6)
    low, high = shown.axes.get_ylim()
    shown.axes.set_ylim(max(0, low - 0.1 * (high - low)), high + 0.1 * (high - low))
    shown.summary = "; ".join(f"kn {run.minibatch}: {mean:.2f} %" for run, mean, _ in points)
    shown.x_unit = ""  # few points, all labelled: nothing to read out
    return shown


def _largest_family(runs: Sequence[RunData]) -> list[tuple[RunData, float, float]]:
    """Return a run of each setting, its mean error and deviation, where they differ in kn alone.

    Where runs differ in more, the largest number of settings that do not.
    """
    of_result = {id(run.result): run for run in runs}
    families: dict[str, list[tuple[RunData, float, float]]] = {}
    for group in by_settings(run.result for run in runs if run.result.finished):
        mean, std = mean_and_std([result.final_error for result in group])
        usual = ("seed", "workers", "batch_per_worker")
        alike = {name: value for name, value in group[0].experiment.items() if name not in usual}
        key = json.dumps([group[0].val_images, alike], sort_keys=True)
        families.setdefault(key, []).append((of_result[id(group[0])], mean, std or 0.0))
    return max(families.values(), key=len, default=[])


def _validation(shown: Panel, run: RunData, runs: Sequence[RunData], axis: Axis) -> None:
    if not len(run.epochs):
        return
    colour, dashes = colour_of(run, runs)
    x, y = axis.of(run, run.epochs), run.epochs["val_top1_error"]
    shown.axes.plot(x, y, color=colour, linestyle=dashes, marker=dot(x, 12), ms=3)
    shown.add(label(run, runs, "validation"), colour, x, y, " %")
    shown.end_label(x, y, "val" if len(runs) == 1 else run.tag, colour)


def _references(shown: Panel, runs: Sequence[RunData]) -> None:
    """Draw the paper's figures for these runs' settings, with two standard deviations."""
    found: dict[Reference, list[RunData]] = {}
    for run in runs:
        if run.reference:
            found.setdefault(run.reference, []).append(run)
    for reference, whose in found.items():
        colour = panel.PAPER if len(found) == 1 else colour_of(whose[0], runs)[0]
        shown.axes.axhline(reference.error, color=colour, lw=1.2, ls=(0, (5, 3)), zorder=1)
        if len(found) > (REFERENCES if shown.name == "error-end" else 1):
            continue  # labels would cover one another
        if reference.std:
            shown.axes.axhspan(
                reference.error - 2 * reference.std, reference.error + 2 * reference.std,
                color=colour, alpha=0.13, lw=0, zorder=0,
            )  # fmt: skip
        shown.axes.annotate(
            f"paper {reference}", (0.02, reference.error), xycoords=("axes fraction", "data"),
            xytext=(0, 3), textcoords="offset points", color=colour, fontsize=9,
        )  # fmt: skip


def _error_summary(runs: Sequence[RunData]) -> str:
    return "; ".join(
        f"{label(run, runs)} validation error {run.result.top1_errors[-1]:.2f} % after "
        f"{len(run.epochs)} epochs".strip()
        for run in runs
        if len(run.epochs)
    )


def _thousands(size: int) -> str:
    return f"{size // 1024}k" if size >= 1024 and size % 1024 == 0 else str(size)
