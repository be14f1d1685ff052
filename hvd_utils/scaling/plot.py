"""The predicted curves beside the paper's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hvd_utils.cli.errors import BadInput
from hvd_utils.scaling.predict import Prediction
from hvd_utils.scaling.published import PAPER_CURVE, PAPER_STEP


def plot(path: Path, rows: Sequence[Prediction], base: Prediction, title: str) -> None:
    """Write a picture of efficiency and images/s over GPUs; raise BadInput if it cannot be."""
    import matplotlib

    matplotlib.use("Agg")  # no screen on a cluster
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name in dict.fromkeys(row.algorithm for row in rows):
        curve = [row for row in rows if row.algorithm == name]
        gpus = [row.gpus for row in curve]
        left.plot(gpus, [100 * row.efficiency(base) for row in curve], "o-", ms=3, label=name)
        right.plot(gpus, [row.images_per_second for row in curve], "o-", ms=3, label=name)
    counts = sorted({row.gpus for row in rows})
    each = base.images_per_second / base.gpus
    right.plot(counts, [each * gpus for gpus in counts], "k:", lw=1, label="ideal")
    measured = list(PAPER_CURVE)
    first = PAPER_CURVE[PAPER_STEP.gpus]
    left.plot(
        measured,
        [100 * first / PAPER_CURVE[gpus] for gpus in measured],
        "ks--",
        label="paper, measured",
    )
    rates = [gpus * PAPER_STEP.images / PAPER_CURVE[gpus] for gpus in measured]
    right.plot(measured, rates, "ks--")
    left.set(ylim=(0, 105), ylabel=f"efficiency against {base.gpus} GPUs, %")
    right.set(yscale="log", ylabel="images/s")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="GPUs")
        axes.set_xticks(counts, [f"{gpus:,}" for gpus in counts], rotation=45, minor=False)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    left.legend()
    figure.suptitle(title, fontsize="medium")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}") from error
    pyplot.close(figure)
