"""Who is slow for long, and who is not."""

from __future__ import annotations

import numpy as np
import pytest

from hvd_utils.timing.stragglers import LONG, SLOWER, Stragglers, lines, own_ratios

HOSTS = ["a", "a", "b", "b"]
USUAL = [0.01, 0.10, 0.02]  # seconds reading, computing, waiting
READS = [0.10, 0.10, 0.00]
COMPUTES = [0.01, 0.20, 0.00]


class Job:
    """Windows of 20 steps, one after the other."""

    def __init__(self, loads=(1, 1, 1, 1), steps=20):
        self.ranks, self.step, self.steps = Stragglers(HOSTS[: len(loads)], loads), 0, steps
        self.size = len(loads)

    def window(self, **slow):
        """A window in which ranks, as r1=READS, take other seconds than usual."""
        seconds = np.array([slow.get(f"r{rank}", USUAL) for rank in range(self.size)])
        self.step += self.steps
        return self.ranks.update(self.step, self.steps, seconds)


def test_a_rank_is_named_after_three_slow_windows_in_a_row_and_new_once():
    job = Job()
    job.window()
    assert [job.window(r2=READS).slow for _ in range(LONG - 1)] == [[], []]
    named = job.window(r2=READS)
    assert [each.rank for each in named.slow] == [2]
    assert named.new == named.slow
    assert (named.slow[0].host, named.slow[0].at, named.slow[0].since) == ("b", "data", 20)
    assert named.slow[0].ratio == pytest.approx(0.20 / 0.11, abs=0.01)
    again = job.window(r2=READS)
    assert (len(again.slow), again.new, again.over) == (1, [], [])


def test_what_it_is_slow_at_is_judged_over_those_windows_together():
    job = Job()
    for _ in range(LONG - 1):
        job.window(r2=READS)
    disturbed = [0.05, 0.16, 0.00]  # the host was busy with something else
    assert job.window(r2=disturbed).slow[0].at == "data"
    assert [job.window(r2=COMPUTES).slow[0].at for _ in range(LONG)][-1] == "compute"


def test_slow_windows_that_are_not_in_a_row_name_nobody():
    job = Job()
    for _ in range(10):
        assert not job.window(r1=COMPUTES).slow
        assert not job.window(r1=COMPUTES).slow
        assert not job.window().slow


def test_it_is_over_after_three_usual_windows_in_a_row_and_may_begin_anew():
    job = Job()
    for _ in range(LONG):
        job.window(r1=COMPUTES)
    assert [job.window().over for _ in range(LONG)] == [[], [], [1]]
    assert not job.window().slow
    step = job.step
    for _ in range(LONG):
        change = job.window(r1=COMPUTES)
    assert [(each.at, each.since) for each in change.new] == [("compute", step)]


def test_short_windows_have_to_be_more_than_three():
    job = Job(steps=1)
    named = [bool(job.window(r1=COMPUTES).slow) for _ in range(40)]
    assert named.index(True) == 29


def test_20_percent_are_the_bound():
    for factor, slow in ((SLOWER - 0.01, []), (SLOWER + 0.01, [3])):
        job = Job()
        for _ in range(LONG):
            change = job.window(r3=[0, 0.11 * factor, 0])
        assert [each.rank for each in change.slow] == slow


def test_waiting_for_others_makes_nobody_slow():
    job = Job()
    for _ in range(LONG):
        assert not job.window(r1=[0.01, 0.10, 5.0]).slow


def test_of_two_ranks_the_slower_is_held_against_the_other():
    job = Job(loads=(1, 1))
    for _ in range(LONG):
        change = job.window(r1=[0.01, 0.13, 0.0])
    assert [each.rank for each in change.slow] == [1]


def test_one_process_is_never_slow():
    job = Job(loads=(1,))
    assert not any(job.window(r0=COMPUTES).slow for _ in range(5))


def test_more_logical_workers_may_take_longer_and_fewer_need_not_be_quicker():
    loads = np.array([2, 2, 3, 3])
    assert (own_ratios(np.array([0.2, 0.2, 0.3, 0.3]), loads) <= 1).all()
    assert (own_ratios(np.array([0.25, 0.25, 0.3, 0.3]), loads) < SLOWER).all()
    assert own_ratios(np.array([0.2, 0.2, 0.3, 0.4]), loads).argmax() == 3
    assert own_ratios(np.array([0.2, 0.2, 0.3, 0.4]), loads).max() > SLOWER


def test_a_slow_host_is_one_line_of_its_slowest_rank():
    job = Job(loads=(1,) * 4)
    for _ in range(LONG):
        change = job.window(r2=READS, r1=COMPUTES)
    (line,) = lines(change, job.step, HOSTS)
    assert line.startswith("warning: rank 1 (a) is slow since step 0, at computing: ")
    assert "1.9 times the median" in line
    assert line.endswith("; slow with it: 1 more, 0 of them on this host")
    for _ in range(LONG):
        change = job.window()
    assert lines(change, job.step, HOSTS) == [
        "rank 1 (a) is not slow any more at step 120, nor are 1 more"
    ]
    assert lines(job.window(), job.step, HOSTS) == []
