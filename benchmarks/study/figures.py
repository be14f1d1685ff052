"""The paper's Figures 1 and 2 from the study's runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.study.outcome import Outcome
from benchmarks.study.rows import BY_WORKERS, LARS_BY_WORKERS, TABLE1
from hvd_utils.paper.results import BY_MINIBATCH

BAND = 2  # standard deviations, as in the paper's Figure 1
Outcomes = Mapping[str, Outcome]


def draw_errors(path: Path, outcomes: Outcomes, batch: int) -> None:
    """Draw error against minibatch, here and in the paper; ``batch`` is n, a worker's images."""
    pyplot = _pyplot()
    figure, (here, paper) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for names, label in ((BY_WORKERS, "SGD"), (LARS_BY_WORKERS, "LARS")):
        found = {workers * batch: outcomes[n] for workers, n in names.items() if n in outcomes}
        if found:
            _error_bars(here, {size: (one.mean, one.std) for size, one in found.items()}, label)
    here.set_title("here: made-up images, a small ResNet", fontsize=9)
    here.legend()
    _error_bars(paper, {size: (one.error, one.std) for size, one in BY_MINIBATCH.items()}, None)
    paper.set_title("Goyal et al. 2017, Figure 1: ImageNet, ResNet-50", fontsize=9)
    for axes in (here, paper):
        axes.set(xlabel="minibatch, images", ylabel="top-1 error, %", yscale="log")
        axes.set_xscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _error_bars(axes, points: Mapping[int, tuple[float, float | None]], label: str | None) -> None:
    means, stds = zip(*points.values(), strict=True)
    bars = [BAND * (std or 0) for std in stds]
    axes.errorbar([*points], means, yerr=bars, fmt="o-", ms=4, capsize=3, label=label)


def draw_curves(path: Path, outcomes: Outcomes) -> None:
    """Draw training error by epoch: the baseline in each panel, and one kind of warmup."""
    pyplot = _pyplot()
    baseline, *kinds = [row for row in TABLE1 if row.name in outcomes]
    figure, panels = pyplot.subplots(
        1, len(kinds), figsize=(4 * len(kinds), 3.2), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axes, row in zip(panels[0], kinds, strict=True):
        for shown, colour in ((baseline, "tab:blue"), (row, "tab:orange")):
            curve = outcomes[shown.name].train_curve()
            epochs = range(1, len(curve) + 1)
            means = [mean for mean, _ in curve]
            workers = f"{shown.workers} worker{'s' if shown.workers > 1 else ''}"
            label = f"{workers}: {outcomes[shown.name]} %"
            axes.plot(epochs, means, color=colour, label=label)
            low, high = zip(*((m - BAND * s, m + BAND * s) for m, s in curve), strict=True)
            axes.fill_between(epochs, low, high, color=colour, alpha=0.2, lw=0)
        axes.set(title=row.title, xlabel="epochs", yscale="log")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3, which="both")
    panels[0, 0].set_ylabel("training error, %")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")  # no screen on a cluster
    from matplotlib import pyplot

    return pyplot
