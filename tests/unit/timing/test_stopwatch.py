"""Seconds of a process by what it does, on a processor and on a device."""

from __future__ import annotations

import time

import pytest

from hvd_utils.faults.heartbeat import COMPUTING, FINISHING, READING, WAITING
from hvd_utils.timing.stopwatch import DeviceStopwatch, HostStopwatch


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_each_part_gets_its_seconds_and_what_is_between_steps_none(clock):
    watch = HostStopwatch()
    for doing, seconds in [
        (READING, 1), (COMPUTING, 2), (READING, 4), (COMPUTING, 8), (WAITING, 16),
        (COMPUTING, 32), (FINISHING, 64), (READING, 128), (FINISHING, 256),
    ]:  # fmt: skip
        watch.switch_to(doing)
        clock[0] += seconds
    assert watch.read() == [1 + 4 + 128, 2 + 8 + 32, 16]


class Event:
    """A mark as torch.cuda.Event, on a device that has come as far as ``passed`` ms."""

    passed, queued, made = 0.0, 0.0, 0

    def __init__(self) -> None:
        Event.made += 1

    def record(self) -> None:
        self.at = Event.queued

    def query(self) -> bool:
        return self.at <= Event.passed

    def elapsed_time(self, later: Event) -> float:
        assert later.query()
        return later.at - self.at


def test_a_device_is_asked_only_for_what_it_has_passed(monkeypatch):
    watch = DeviceStopwatch()
    monkeypatch.setattr(watch, "_new_event", Event)
    for _ in range(3):
        for doing, ms in [(READING, 1), (COMPUTING, 20), (WAITING, 300), (FINISHING, 4000)]:
            watch.switch_to(doing)
            Event.queued += ms
        Event.passed = Event.queued - 4100  # in the middle of waiting
        watch.read()
    assert watch.read() == pytest.approx([0.003, 0.060, 0.600])
    Event.passed = Event.queued
    assert watch.read() == pytest.approx([0.003, 0.060, 0.900])
    assert Event.made <= 8  # marks that were passed are used again
