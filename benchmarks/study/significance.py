"""Statistics of two settings' errors: pure functions, by SciPy's Welch test.

Settings spread differently, so no common variance is assumed (Welch 1947). A test asks whether the
difference of two means lies beyond a bound. Its p value is two-sided: twice the smaller of the two
one-sided ones, so that it may find the claim or its opposite. Equality within a margin is tested
likewise by two one-sided tests (TOST, Schuirmann 1987): that a test finds no difference shows none.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from scipy import stats

LEVEL = 0.05  # most that the chance of any false verdict of a family may be
MOST_SEEDS = 200

Sample = Sequence[float]
Name = TypeVar("Name")  # of a test


class Comparison(NamedTuple):
    """What a test found: the difference of two means, its 95 % interval and the p value."""

    difference: float  # in the samples' unit
    low: float
    high: float
    p: float
    claimed: bool  # the difference is on the claim's side of the bound


def lower(one: Sample, other: Sample, by: float = 0) -> Comparison:
    """Return whether the mean of ``one`` is lower than that of ``other`` by more than ``by``.

    The difference is other less one.
    """
    p = _p(one, other, by, "two-sided")
    difference, low, high = _interval(one, other)
    return Comparison(difference, low, high, p, difference > by)


def equal(one: Sample, other: Sample, margin: float) -> Comparison:
    """Return whether two means are less than ``margin`` apart; it has to be chosen beforehand."""
    within = max(_p(one, other, -margin, "greater"), _p(one, other, margin, "less"))
    beyond = min(_p(one, other, -margin, "less"), _p(one, other, margin, "greater"))
    difference, low, high = _interval(one, other)
    return Comparison(
        difference, low, high, min(1.0, 2 * min(within, beyond)), abs(difference) < margin
    )


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """Return the p values of a family of tests corrected for their number (Holm 1979).

    Where those of at most LEVEL count as found, the chance of any false finding is at most LEVEL,
    however the tests depend on each other.
    """
    corrected: dict[Name, float] = {}
    most = 0.0
    for place, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        most = max(most, min(1.0, (len(p_values) - place) * p_values[name]))
        corrected[name] = most
    return corrected


def seeds_needed(
    spreads: tuple[float, float], effect: float, level: float, power: float, margin: float = 0
) -> int | None:
    """Return the seeds of each setting with which a test finds its claim; None: over MOST_SEEDS.

    ``spreads`` are the standard deviations, ``effect`` the true difference. With a ``margin`` it is
    the test of equality, and the effect is 0 or less than it. ``level`` is of the two-sided test.
    """
    variance = [spread**2 for spread in spreads]
    if not sum(variance):
        return None  # a test of values without any spread finds nothing
    for seeds in range(2, MOST_SEEDS + 1):
        error = math.sqrt(sum(variance) / seeds)
        # Of Welch and Satterthwaite, with as many seeds of both.
        freedom = (seeds - 1) * sum(variance) ** 2 / sum(one**2 for one in variance)
        least = stats.t.ppf(1 - level / 2, freedom)
        distance = margin - abs(effect) if margin else effect
        found = stats.nct.sf(least, freedom, distance / error)
        if margin:  # both bounds have to be passed; with no effect they are equally far
            found -= stats.nct.cdf(least, freedom, (margin + abs(effect)) / error)
        if found >= power:
            return seeds
    return None


def _welch(one: Sample, other: Sample, shift: float = 0, alternative: str = "two-sided") -> Any:
    shifted = [value - shift for value in other]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of samples whose values are all equal
        return stats.ttest_ind(shifted, one, equal_var=False, alternative=alternative)


def _p(one: Sample, other: Sample, shift: float, alternative: str) -> float:
    """Return Welch's p for other less one against ``shift``; 1 where neither has any spread."""
    if len(set(one)) == len(set(other)) == 1:  # SciPy would take rounding for their spread
        return 1.0
    result = _welch(one, other, shift, alternative)
    return float(result.pvalue) if math.isfinite(result.statistic) else 1.0


def _interval(one: Sample, other: Sample) -> tuple[float, float, float]:
    """Return other less one, and the ends of Welch's 95 % interval."""
    difference = math.fsum(other) / len(other) - math.fsum(one) / len(one)
    ends = _welch(one, other).confidence_interval(1 - LEVEL)
    low, high = (float(end) if math.isfinite(end) else difference for end in ends)
    return difference, low, high
