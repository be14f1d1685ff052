"""What a step over several nodes loses beyond data sheets: one number, fitted to published runs.

By it a step on more than one node takes longer than its computing, bandwidth and latencies say. It
stands for all that data sheets leave out: jitter, what sums take from the GPU and its host, fixed
costs of a step. Jitter that grows with the number of GPUs was tried in its place, as its expected
maximum and as its logarithm; both did worse at clusters left out.

``python -m hvd_utils.scaling.calibration`` fits it anew, once with each cluster left out, and
prints the constants below. A fit minimises the mean over clusters of their mean absolute error.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

BETWEEN_NODES = 0.1  # of the computing time; fitted to all clusters


class Fit(NamedTuple):
    """The same without one cluster, and the largest error at the others."""

    between_nodes: float
    interval: float  # shares of efficiency


# By the cluster left out, to which the planner is then held.
LEFT_OUT: Mapping[str, Fit] = {
    "paper": Fit(0.1, 0.055),
    "Horovod": Fit(0.1, 0.055),
    "DLPerf": Fit(0.08, 0.037),
    "Akiba": Fit(0.08, 0.071),
    "Jia": Fit(0.08, 0.071),
    "Mikami": Fit(0.1, 0.055),
    "MLPerf": Fit(0.1, 0.055),
}
# Of predictions: the largest error at a cluster left out. If a new cluster is like the seven, it
# has a larger one in one case of eight.
INTERVAL = 0.072

GRID = tuple(i / 100 for i in range(5, 14))
Errors = Mapping[float, Sequence[float]]  # by value: of each point, predicted less published


def fit(errors: Errors, clusters: Sequence[str], left_out: str | None = None) -> float:
    """Return the value whose errors are least over the clusters but ``left_out``."""

    def loss(value: float) -> float:
        of_cluster: dict[str, list[float]] = {}
        for error, cluster in zip(errors[value], clusters, strict=True):
            if cluster != left_out:
                of_cluster.setdefault(cluster, []).append(abs(error))
        return statistics.fmean(map(statistics.fmean, of_cluster.values()))

    return min(errors, key=loss)


def left_out_interval(errors: Errors, clusters: Sequence[str], left_out: str) -> float:
    """Return the largest error of the other clusters, where one is left out of the fit."""
    fitted = errors[fit(errors, clusters, left_out)]
    pairs = zip(fitted, clusters, strict=True)
    return max(abs(error) for error, cluster in pairs if cluster != left_out)


def interval(efficiency: float) -> tuple[float, float]:
    """Return between which efficiencies that of a run is expected, where this one is predicted."""
    return max(0.0, efficiency - INTERVAL), min(1.0, efficiency + INTERVAL)


def measure_errors() -> tuple[Errors, list[str]]:
    """Return the errors of all published points for each value of GRID, and their clusters."""
    from hvd_utils.scaling.published import predicted_efficiency, published_points

    errors = {}
    for value in GRID:
        points = published_points(value)
        errors[value] = [predicted_efficiency(p, value) - p.efficiency for p in points]
    return errors, [point.group for point in points]


def main() -> None:
    """Fit, and print the constants with what they come to."""
    errors, clusters = measure_errors()
    print(f"BETWEEN_NODES = {fit(errors, clusters)}")
    for name in dict.fromkeys(clusters):
        value = fit(errors, clusters, name)
        width = left_out_interval(errors, clusters, name)
        here = [e for e, c in zip(errors[value], clusters, strict=True) if c == name]
        told = ", ".join(f"{100 * error:+.1f}" for error in here)
        print(f'"{name}": Fit({value}, {width:.3f}),  # off by {told} points')


if __name__ == "__main__":
    main()
