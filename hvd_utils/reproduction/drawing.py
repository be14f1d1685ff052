"""What pictures of errors share: points with their spread, and training curves with a band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

BAND = 2  # standard deviations, as in the paper's Figure 1


def new_figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    """Return a figure of so many inches, and its axes, an array of (rows, columns)."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, sharey=True, squeeze=False)


def error_bars(
    axes: Any, points: Mapping[int, tuple[float, float | None]], label: str | None = None
) -> None:
    """Draw mean errors over minibatches with a bar of two standard deviations."""
    means, stds = zip(*points.values(), strict=True)
    bars = [BAND * (std or 0) for std in stds]
    axes.errorbar([*points], means, yerr=bars, fmt="o-", ms=4, capsize=3, label=label)


def over_minibatches(axes: Any) -> None:
    """Give axes of errors over minibatches their names and scales."""
    axes.set(xlabel="minibatch, images", ylabel="top-1 error, %", yscale="log")
    axes.set_xscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.3, which="both")


def curve(
    axes: Any, points: Sequence[tuple[float, float]], label: str, colour: str, style: str = "-"
) -> None:
    """Draw mean and standard deviation by epoch: a line, and a band of two deviations."""
    epochs = range(1, len(points) + 1)
    axes.plot(epochs, [mean for mean, _ in points], style, color=colour, label=label)
    low, high = zip(*((mean - BAND * std, mean + BAND * std) for mean, std in points), strict=True)
    axes.fill_between(epochs, low, high, color=colour, alpha=0.2, lw=0)
