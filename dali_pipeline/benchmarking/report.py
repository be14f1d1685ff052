"""The results as a table, as JSON and as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

from dali_pipeline.benchmarking.bench import Stream
from dali_pipeline.benchmarking.candidates import ON_GPU, ours_against
from dali_pipeline.benchmarking.measure import ratios

Rates = Mapping[str, list[float]]  # images/s of each round, by candidate


def our_ratios(rates: Rates) -> dict[str, float]:
    """Return ours over theirs by candidate: the median of the rounds' ratios."""
    return {
        name: ratios(rates, name)[ours_against(name)]
        for name in rates
        if name != ours_against(name)
    }


def table(streams: Mapping[str, Stream], rates: Rates) -> str:
    """Return the table of medians, extremes and ratios."""
    ours = our_ratios(rates)
    lines = [f"{'images/s':20} {'median':>8} {'min':>8} {'max':>8} {'ours/this':>10}"]
    for name, values in rates.items():
        ratio = f"{ours[name]:.2f}" if name in ours else ""
        low, middle, high = min(values), statistics.median(values), max(values)
        figures = f"{middle:8,.0f} {low:8,.0f} {high:8,.0f} {ratio:>10}"
        lines.append(f"{name:20} {figures}  {streams[name].what}")
    return "\n".join(lines)


def feeds(rate: float, gpu_rate: float) -> str:
    """Return how many GPUs a node's ``rate`` feeds, images/s."""
    return (
        f"full feeds {rate / gpu_rate:.2f} GPUs of a node that eat {gpu_rate:,.0f} images/s each "
        "(--gpu-rate: an assumption, not measured)"
    )


def decoding(rates: Mapping[str, float], gpu_rate: float, failed: Mapping[str, str]) -> str:
    """Return which way of decoding feeds how many GPUs; ``rates`` are a node's by candidate."""
    by_way = {"cpu": "full", **ON_GPU}
    measured = {way: rates[name] for way, name in by_way.items() if name in rates}
    told = [f"{way} feeds {rate / gpu_rate:.2f} GPUs" for way, rate in measured.items()]
    told += [f"{way} failed, {reason}" for way, reason in failed.items()]
    quickest = max(measured, key=measured.__getitem__)
    return f"--decode {quickest} is the quickest: {'; '.join(told)}"


def plot(path: Path, rates: Rates, title: str) -> None:
    """Draw medians as bars, with the extremes; ours are blue."""
    import matplotlib

    matplotlib.use("Agg")  # no screen on a cluster
    from matplotlib import pyplot

    names = [name for name in rates if name != "read"]  # dozens of times the others
    middle = [statistics.median(rates[name]) for name in names]
    spread = [
        [m - min(rates[name]) for m, name in zip(middle, names, strict=True)],
        [max(rates[name]) - m for m, name in zip(middle, names, strict=True)],
    ]
    colours = ["tab:blue" if name.startswith("full") else "tab:gray" for name in names]
    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 0.4 * len(names)), layout="constrained")
    bars = axes.barh(names, middle, xerr=spread, color=colours, capsize=2)
    axes.bar_label(bars, [f"{value:,.0f}" for value in middle], padding=6)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set(xlabel="images/s")
    axes.set_title(title, fontsize=9)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
