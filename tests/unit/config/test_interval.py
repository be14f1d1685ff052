"""When the next checkpoint is due."""

import time

import pytest

from hvd_utils.config.interval import Interval, Timer, parse


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("500", Interval(steps=500)),
        (500, Interval(steps=500)),  # as YAML reads it
        ("500 steps", Interval(steps=500)),
        ("500steps", Interval(steps=500)),
        ("1 step", Interval(steps=1)),
        ("90s", Interval(seconds=90)),
        ("10min", Interval(seconds=600)),
        (" 10 MIN ", Interval(seconds=600)),
        ("1.5h", Interval(seconds=5400)),
    ],
)
def test_steps_and_times(text, interval):
    assert parse(text) == interval


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "500, 500steps, 90s"),
        ("often", "500, 500steps, 90s"),
        ("-5", "500, 500steps, 90s"),
        ("1e3", "500, 500steps, 90s"),
        ("10m", "no unit m: give steps, s, min or h"),
        ("2 days", "no unit days"),
        ("0", "greater than 0"),
        ("0.0h", "greater than 0"),
        ("1.5", "whole"),
        ("2.0 steps", "whole"),
    ],
)
def test_what_is_wrong_is_said(text, words):
    with pytest.raises(ValueError, match=words):
        parse(text)


def test_steps_are_counted_from_the_last_checkpoint_whatever_the_time():
    every = Interval(steps=10)
    assert not every.due(step=19, last_step=10, now=1e9, last_time=0)
    assert every.due(step=20, last_step=10, now=0, last_time=0)


def test_time_is_counted_from_the_last_checkpoint_whatever_the_steps():
    every = Interval(seconds=60)
    assert not every.due(step=10**6, last_step=0, now=159.9, last_time=100)
    assert every.due(step=1, last_step=1, now=160, last_time=100)


def test_a_timer_starts_at_the_step_a_run_goes_on_from():
    timer = Timer(Interval(steps=10), step=95)
    assert not timer.due(104)
    assert timer.due(105)
    assert timer.due(106)  # until it is done
    timer.done(106)
    assert not timer.due(115)
    assert timer.due(116)


def test_setting_the_clock_of_the_machine_changes_nothing(monkeypatch):
    """The monotonic clock, which counts, is moved beside it."""
    now = {"monotonic": 1000.0, "time": 1.7e9}
    monkeypatch.setattr(time, "monotonic", lambda: now["monotonic"])
    monkeypatch.setattr(time, "time", lambda: now["time"])
    timer = Timer(Interval(seconds=600), step=0)
    now["time"] += 1e6
    assert not timer.due(1)
    now["time"] -= 2e6
    now["monotonic"] += 600
    assert timer.due(2)
    timer.done(2)
    assert not timer.due(3)
