"""The predicted curves beside the paper's own: its Figures 7 and 8, and efficiency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hvd_utils.cli.errors import BadInput
from hvd_utils.paper.results import STEP_SECONDS
from hvd_utils.scaling.measured import Measured, by_input, efficiency
from hvd_utils.scaling.predict import Prediction
from hvd_utils.scaling.published import PAPER_STEP


def plot(
    path: Path,
    rows: Sequence[Prediction],
    base: Prediction,
    title: str,
    measured: Sequence[Measured] = (),
) -> None:
    """Write a picture over GPUs: seconds of a step, efficiency, images/s.

    Raises BadInput if it cannot be written.
    """
    figure = Figure(figsize=(14, 4), layout="constrained")
    panels = figure.subplots(1, 3)
    for name in dict.fromkeys(row.algorithm for row in rows):
        curve = {row.gpus: row for row in rows if row.algorithm == name}
        seconds = {gpus: row.seconds for gpus, row in curve.items()}
        shares = {gpus: 100 * row.efficiency(base) for gpus, row in curve.items()}
        rates = {gpus: row.images_per_second for gpus, row in curve.items()}
        _lines(panels, (seconds, shares, rates), "o-", ms=3, label=name)
    paper = {gpus: 100 * STEP_SECONDS[PAPER_STEP.gpus] / s for gpus, s in STEP_SECONDS.items()}
    rates = {gpus: gpus * PAPER_STEP.images / s for gpus, s in STEP_SECONDS.items()}
    _lines(panels, (STEP_SECONDS, paper, rates), "ks--", label="paper, measured")
    for kind, points in by_input(measured).items():
        seconds = {point.gpus: point.seconds for point in points}
        efficiencies = {point.gpus: 100 * efficiency(point, points) for point in points}
        rates = {point.gpus: point.images_per_second for point in points}
        _lines(panels, (seconds, efficiencies, rates), "D-", label=f"measured, {kind}")
    counts = sorted({row.gpus for row in rows})
    each = base.images_per_second / base.gpus
    panels[2].plot(counts, [each * gpus for gpus in counts], "k:", lw=1, label="ideal")
    panels[0].set(ylim=(0, None), ylabel="seconds of a step")
    panels[1].set(ylim=(0, 105), ylabel=f"efficiency against {base.gpus} GPUs, %")
    panels[2].set(yscale="log", ylabel="images/s")
    for axes in panels:
        axes.set(xscale="log", xlabel="GPUs")
        axes.set_xticks(counts, [f"{gpus:,}" for gpus in counts], rotation=45, minor=False)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[2].legend()
    figure.suptitle(title, fontsize="medium")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}") from error


def _lines(
    panels: Sequence[Any], curves: Sequence[Mapping[int, float]], style: str, **options: Any
) -> None:
    for axes, curve in zip(panels, curves, strict=True):
        axes.plot([*curve], [*curve.values()], style, **options)
