"""What benchmarks of whole jobs have in common: options, a table, targets, JSON and a picture."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dali_pipeline.benchmarking.measure import machine, write_json
from hvd_utils.cli.argument_types import positive
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.parser import Parser

Rates = Mapping[str, list[float]]  # images/s of each round, by candidate


class Target(NamedTuple):
    """A figure by name, and the least it should be."""

    figure: str
    least: float

    def line(self, figures: Mapping[str, float]) -> str:
        """Return the line that says whether it was met."""
        value = figures[self.figure]
        verdict = "met" if value >= self.least else "missed"
        return f"{self.figure} {value:.3f}; target {self.least:g}: {verdict}"


def options_of_results(name: str, description: str, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark of jobs has."""
    parser = Parser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--rounds", type=positive, default=rounds, help="(default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="prove that it runs; no figures")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a picture, as .png")
    return parser


def check_files(options: argparse.Namespace) -> None:
    """Raise BadInput where a file to write has no folder: now, not after minutes."""
    for flag in ("json", "plot", "curves"):
        path = getattr(options, flag, None)  # not all of them draw
        if path and not path.absolute().parent.is_dir():
            raise BadInput(f"--{flag} {path}: there is no folder {path.parent}: make it")
        if path and path.is_dir():
            raise BadInput(f"--{flag} {path} is a folder: give a file")


def ratio(rates: Rates, name: str, base: str) -> float:
    """Return the median over rounds of one candidate's rate by another's in the same round."""
    return statistics.median(a / b for a, b in zip(rates[name], rates[base], strict=True))


def show(
    options: argparse.Namespace,
    title: str,
    rates: Rates,
    figures: Mapping[str, float],
    targets: list[Target],
    **facts: Any,
) -> None:
    """Print table and targets; write JSON and picture if they were asked for."""
    heading = f"{machine()}; {title}"
    print(heading)
    print(f"{'images/s':36} {'median':>9} {'min':>9} {'max':>9}")
    for name, values in rates.items():
        middle = statistics.median(values)
        print(f"{name:36} {middle:9.1f} {min(values):9.1f} {max(values):9.1f}")
    aimed = {target.figure for target in targets}
    for name, value in figures.items():
        if name not in aimed:
            print(f"{name} {value:.3f}")
    for target in targets:
        print(target.line(figures))
    if options.quick:
        print("--quick: this proves that it runs; its figures mean nothing")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    write_json(
        options.json,
        {
            "figures": dict(figures),
            "targets": {target.figure: target.least for target in targets},
            "images_per_second": medians,
            "rounds": dict(rates),
            "what": title,
            **facts,
        },
    )
    if options.plot:
        _plot(options.plot, rates, heading)


def _plot(path: Path, rates: Rates, title: str) -> None:
    """Draw medians as bars, with the extremes; ours are blue."""
    import matplotlib

    matplotlib.use("Agg")  # no screen on a cluster
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 1 + 0.4 * len(rates)), layout="constrained")
    for name, values in rates.items():
        middle = statistics.median(values)
        spread = [[middle - min(values)], [max(values) - middle]]
        colour = "tab:blue" if name.startswith("ours") else "tab:gray"
        bar = axes.barh([name], [middle], xerr=spread, color=colour, capsize=2)
        axes.bar_label(bar, [f"{middle:,.1f}"], padding=6)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set(xlabel="images/s")
    axes.set_title(title, fontsize=8, wrap=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
