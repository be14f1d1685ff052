"""The cost of stragglers: all ranks wait for the slowest one.

The spread is the standard deviation of the ranks' computing times by their mean; they are taken to
be independent and normally distributed.
"""

from __future__ import annotations

from functools import cache
from math import erf, sqrt

import numpy as np

# Assumed where none was measured. Equal GPUs of one cluster differ by 8 % on average, between the
# ends of a box plot's whiskers (Sinha et al., SC 2022, arXiv 2208.11035), which in a normal
# distribution are 5.4 standard deviations apart.
SPREAD = 0.08 / 5.4


def slowdown(gpus: int, spread: float) -> float:
    """Return the expected time of the slowest of so many GPUs, by the mean; 1 for one GPU."""
    return 1 + spread * expected_maximum(gpus)


@cache
def expected_maximum(ranks: int) -> float:
    """Return the expected largest of so many standard normal numbers; it grows with them.

    By integration of their distribution, Φ to the power of ``ranks``: no draws, so no noise.
    """
    if ranks == 1:
        return 0.0
    grid, normal = _normal_distribution()
    below = normal**ranks  # the probability that all are
    return float(((grid > 0) - below).sum() * (grid[1] - grid[0]))


@cache
def _normal_distribution() -> tuple[np.ndarray, np.ndarray]:
    grid = np.linspace(-10, 10, 4000)  # without 0, where the integrand jumps
    return grid, np.array([(1 + erf(x / sqrt(2))) / 2 for x in grid])


def spread_of(median: float, most: float, ranks: int) -> float | None:
    """Return the spread of so many ranks' times, of which median and most are known.

    None if it is unknown.
    """
    if ranks < 2 or median <= 0:
        return None
    return max(0.0, most / median - 1) / expected_maximum(ranks)
