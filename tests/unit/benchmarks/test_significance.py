"""The study's statistics: tests against known values, and how often they are wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.study.significance import LEVEL, equal, holm, lower, seeds_needed


def test_lower_is_welchs_test_whose_spreads_may_differ():
    one, other = [4.0, 4.1, 4.2], [5.0, 5.5, 6.3]
    found = lower(one, other)
    variances = np.var(one, ddof=1) / 3, np.var(other, ddof=1) / 3
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 2 + variances[1] ** 2 / 2)
    statistic = found.difference / sum(variances) ** 0.5
    assert found.difference == pytest.approx(1.5)
    assert found.p == pytest.approx(2 * stats.t.sf(statistic, freedom))
    half = stats.t.ppf(0.975, freedom) * sum(variances) ** 0.5
    assert (found.low, found.high) == pytest.approx((1.5 - half, 1.5 + half))
    assert found.claimed
    assert lower(other, one).p == pytest.approx(found.p)
    assert not lower(other, one).claimed


def test_equality_has_to_be_shown():
    close, same, far = [4.0, 4.1, 4.2], [4.05, 4.1, 4.25], [6.0, 6.1, 6.2]
    found = equal(close, same, 1.0)
    assert found.claimed
    assert found.p < LEVEL
    other_way = equal(close, far, 1.0)
    assert not other_way.claimed
    assert other_way.p < LEVEL
    wide = [1.0, 4.0, 8.0]  # no difference is found, but none is excluded either
    assert lower(wide, close).p > LEVEL
    assert equal(wide, close, 1.0).p > LEVEL


def test_equality_is_found_where_the_95_percent_interval_is_within_the_margin():
    one, other = [4.0, 4.3, 4.2, 3.9], [4.1, 4.4, 4.0, 4.5]
    found = lower(one, other)
    end = max(abs(found.low), abs(found.high))
    assert equal(one, other, end * 1.001).p < LEVEL < equal(one, other, end * 0.999).p


def test_values_without_any_spread_are_no_error():
    assert lower([4.0, 4.0], [4.0, 4.0]).p == 1
    diverged = lower([4.0, 4.1, 4.2], [95.0, 95.0, 95.0])
    assert diverged.p < LEVEL
    assert diverged.low < 91 < diverged.high


@pytest.mark.parametrize("value", [0.1, 4.0, 12.7])
def test_values_without_any_spread_decide_nothing(value):
    """SciPy sees a spread of 1e-17 in three times 0.1."""
    same, more = [value] * 3, [value + 0.05] * 3
    assert lower(same, more).p == 1
    assert equal(same, same, 0.55).p == equal(same, more, 0.55).p == 1
    assert seeds_needed((0.0, 0.0), 0.05, LEVEL, 0.9) is None


def test_holm_corrects_the_smallest_most_and_keeps_the_order():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06}
    )
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_a_family_has_a_false_verdict_in_at_most_5_of_100_studies():
    random = np.random.default_rng(1)
    one = random.normal(size=(4000, 11, 5))  # studies, claims, seeds
    other = random.normal(scale=2, size=one.shape)  # settings differ in spread, not in their mean
    p = stats.ttest_ind(one, other, axis=2, equal_var=False).pvalue
    found = [min(holm(dict(enumerate(values))).values()) <= LEVEL for values in p]
    assert 0.02 < np.mean(found) <= LEVEL


def test_two_standard_errors_of_5_seeds_would_be_a_false_verdict_in_8_of_100_claims():
    one, other = np.random.default_rng(1).normal(size=(2, 40_000, 5))
    error = np.sqrt((one.var(axis=1, ddof=1) + other.var(axis=1, ddof=1)) / 5)
    beyond = np.abs(one.mean(axis=1) - other.mean(axis=1)) > 2 * error
    assert np.mean(beyond) == pytest.approx(0.08, abs=0.005)


@pytest.mark.parametrize(("margin", "effect"), [(0, 1.1), (1.1, 0)])
def test_so_many_seeds_have_the_power(margin, effect):
    spreads, level = (0.5, 1.0), 0.005
    seeds = seeds_needed(spreads, effect, level, 0.9, margin)
    random = np.random.default_rng(3)
    one = random.normal(0, spreads[0], (2000, seeds))
    other = random.normal(effect, spreads[1], (2000, seeds))
    if margin:
        greater, less = (
            stats.ttest_ind(other - end, one, axis=1, equal_var=False, alternative=side).pvalue
            for end, side in ((-margin, "greater"), (margin, "less"))
        )
        p = 2 * np.maximum(greater, less)
    else:
        p = stats.ttest_ind(other, one, axis=1, equal_var=False).pvalue
    assert 0.87 < np.mean(p <= level) < 0.95


def test_too_many_seeds_are_told_so():
    assert seeds_needed((0.3, 36.0), 1.0, 0.005, 0.9) is None
