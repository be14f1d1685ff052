"""Rates of a steady state, from marks that measured processes left."""

import json

import pytest

from benchmarks.harness.steady import (
    Clock,
    Mark,
    NotAtOnce,
    Span,
    job_marks,
    rate,
    rates_at_once,
    told_marks,
)


def test_warm_up_is_left_out(capsys):
    clock = Clock(Span(warm_up=2, steps=4))
    for made in range(1, 7):
        clock.tick(made)
    clock.tell()
    marks = told_marks(f"[0]<stdout>:{capsys.readouterr().out}")
    assert [mark.step for mark in marks] == [2, 6]


def test_rate():
    assert rate([Mark(5, 100.0), Mark(10, 101.0), Mark(15, 102.0)], images=8) == 40


def test_only_what_ran_at_once_is_counted():
    first = [Mark(0, 0.0), Mark(5, 1.0), Mark(10, 2.0), Mark(15, 3.0)]
    second = [Mark(0, 1.0), Mark(5, 3.0), Mark(10, 5.0)]
    assert rates_at_once([first, second], images=2) == [10, 5]
    with pytest.raises(NotAtOnce, match="one after the other"):
        rates_at_once([first, [Mark(0, 2.5), Mark(5, 9.0)]], images=2)


def test_windows_divide_the_steps_of_the_job():
    assert Span(100, 400).window == 20
    assert Span(5, 15).window == 5


def test_a_jobs_marks_tell_who_waited(tmp_path):
    events = [
        {"event": "start", "time": 0.0},
        {"event": "step", "step": 1, "time": 1.0},
        {"event": "step", "step": 2, "time": 2.0},
        {"event": "step", "step": 3, "time": 3.0, "compute_seconds": [0.6, 0.7, 0.8]},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in events))
    before, after = job_marks(tmp_path, Span(warm_up=2, steps=1))
    assert (before.step, before.waiting) == (2, 0)
    assert after.waiting == pytest.approx(0.125)
