"""What the seconds of all ranks tell."""

from __future__ import annotations

import numpy as np
import pytest

from hvd_utils.timing.step_times import (
    FIELDS,
    bound_by,
    make_step_times,
    mean_split,
    split,
    split_text,
)
from hvd_utils.timing.stragglers import Straggler

# Seconds per step: data, compute, allreduce. Rank 1 reads for long; the others wait for it.
READS = np.array([[0.01, 0.1, 0.4], [0.3, 0.1, 0.02], [0.01, 0.12, 0.39]])


def test_a_step_carries_least_median_and_most_of_each_part_over_the_ranks():
    fields = make_step_times(READS, None).fields()
    assert fields["data_seconds"] == [0.01, 0.01, 0.3]
    assert fields["compute_seconds"] == [0.1, 0.1, 0.12]
    assert fields["allreduce_seconds"] == [0.02, 0.39, 0.4]
    assert set(fields) < set(FIELDS)


def test_who_is_slow_is_told_where_somebody_is():
    fields = make_step_times(READS, Straggler(1, "node01", "data", 3.5, 120)).fields()
    assert set(fields) == set(FIELDS)
    assert (fields["slow_rank"], fields["slow_host"], fields["slow_since"]) == (1, "node01", 120)


def test_a_step_is_bound_by_what_the_rank_does_that_the_others_wait_for():
    """Not by the waiting of the others, though it is most of their time."""
    assert bound_by(split(READS)) == "input"
    assert split(READS)["allreduce"] == pytest.approx(0.02 / 0.42, abs=1e-4)


@pytest.mark.parametrize(
    ("seconds", "bound"),
    [
        ([[0.2, 0.1, 0.1], [0.2, 0.1, 0.1]], "input"),
        ([[0.1, 0.2, 0.1], [0.1, 0.2, 0.1]], "compute"),
        ([[0.1, 0.1, 0.2], [0.1, 0.1, 0.2]], "network"),  # all wait: no rank is late
        ([[0.1, 0.2, 0.0]], "compute"),
        ([[0.0, 0.0, 0.0]], "input"),  # too quick for the clock
    ],
)
def test_input_compute_and_network(seconds, bound):
    assert bound_by(split(np.array(seconds))) == bound


def test_splits_are_shown_in_whole_percent():
    parts = [{"data": 0.0, "compute": 1.0, "allreduce": 0.0}, split(READS)]
    assert split_text(mean_split(parts)) == "data 36 % compute 62 % allreduce 2 %"
