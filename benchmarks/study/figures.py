"""The paper's Figures 1 and 2 from the study's runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.study.rows import BY_WORKERS, LARS_BY_WORKERS, TABLE1
from hvd_utils.inspect.outcome import Outcome
from hvd_utils.paper.results import BY_MINIBATCH
from hvd_utils.reproduction.drawing import curve, error_bars, new_figure, over_minibatches

Outcomes = Mapping[str, Outcome]


def draw_errors(path: Path, outcomes: Outcomes, batch: int) -> None:
    """Draw error against minibatch, here and in the paper; ``batch`` is n, a worker's images."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    here, paper = figure.subplots(1, 2)  # each with errors of its own
    for names, label in ((BY_WORKERS, "SGD"), (LARS_BY_WORKERS, "LARS")):
        found = {workers * batch: outcomes[n] for workers, n in names.items() if n in outcomes}
        if found:
            error_bars(here, {size: (one.mean, one.std) for size, one in found.items()}, label)
    here.set_title("here: made-up images, a small ResNet", fontsize=9)
    here.legend()
    error_bars(paper, {size: (one.error, one.std) for size, one in BY_MINIBATCH.items()})
    paper.set_title("Goyal et al. 2017, Figure 1: ImageNet, ResNet-50", fontsize=9)
    for axes in (here, paper):
        over_minibatches(axes)
    figure.savefig(path, dpi=120)


def draw_curves(path: Path, outcomes: Outcomes) -> None:
    """Draw training error by epoch: the baseline in each panel, and one kind of warmup."""
    baseline, *kinds = [row for row in TABLE1 if row.name in outcomes]
    figure, panels = new_figure(1, len(kinds), (4 * len(kinds), 3.2))
    for axes, row in zip(panels[0], kinds, strict=True):
        for shown, colour in ((baseline, "tab:blue"), (row, "tab:orange")):
            workers = f"{shown.workers} worker{'s' if shown.workers > 1 else ''}"
            label = f"{workers}: {outcomes[shown.name]} %"
            curve(axes, outcomes[shown.name].train_curve(), label, colour)
        axes.set(title=row.title, xlabel="epochs", yscale="log")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3, which="both")
    panels[0, 0].set_ylabel("training error, %")
    figure.savefig(path, dpi=120)
