"""A rank that takes longer than the others is named, with what it is slow at; no other is."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from support.launching import PROGRAMS, REPOSITORY, TINY, launch

from hvd_utils.inspect.run_state import read_state
from hvd_utils.inspect.status import show
from hvd_utils.run.event_log import METRICS, read_events

pytestmark = pytest.mark.long

PROGRAM = str(PROGRAMS / "slowed_job.py")
SCHEDULE = "29-70:1:data,109-150:0:compute"  # before and between them, no rank is slow
LONGER = 0.1  # seconds that a slow rank takes more, as in slowed_job.py
SMALL = (*TINY, "--loader", "synthetic", "--synthetic-images", "10000", "--epochs", "90")
SMALL += ("--log-every", "10", "--max-steps", "150", "--reference-rate", "0.0125")


class Slowed(NamedTuple):
    steps: dict[int, dict]  # events by step
    printed: str
    status_while_it_ran: str
    status_at_the_end: str


def logged(run: Path) -> dict[int, dict]:
    if not (run / METRICS).exists():
        return {}
    return {event["step"]: event for event in read_events(run) if event["event"] == "step"}


@pytest.fixture(scope="module")
def slowed(tmp_path_factory) -> Slowed:
    folder = tmp_path_factory.mktemp("slowed")
    run, looked = folder / "run", folder / "looked"
    command = [PROGRAM, SCHEDULE, f"75:{looked}", *SMALL, "--output", str(run)]
    with ThreadPoolExecutor(1) as thread:
        job = thread.submit(launch, command, ranks=2, PYTHONPATH=str(REPOSITORY))
        while not job.done() and 60 not in logged(run):
            time.sleep(0.02)
        status = show(read_state(run, time.time())) if (run / METRICS).exists() else ""
        looked.touch()
        ended = job.result()
    assert ended.code == 0, ended.output
    return Slowed(logged(run), ended.output, status, show(read_state(run, time.time())))


def test_the_slow_rank_is_named_from_the_third_window_on_and_no_other(slowed):
    named = {step: event.get("slow_rank") for step, event in slowed.steps.items()}
    assert [named[step] for step in (10, 20, 30, 40, 50)] == [None] * 5
    assert [named[step] for step in (60, 70)] == [1, 1]
    assert named[120] is None
    assert [named[step] for step in (140, 150)] == [0, 0]
    assert [slowed.steps[step]["slow_at"] for step in (70, 150)] == ["data", "compute"]
    assert slowed.steps[70]["slow_ratio"] > 1.5
    assert slowed.steps[70]["slow_since"] <= 39


def test_the_others_wait_in_allreduce_and_the_step_is_bound_by_what_they_wait_for(slowed):
    for step, part in ((60, "data"), (140, "compute")):
        event = slowed.steps[step]
        least, median, most = event[f"{part}_seconds"]
        assert most > least + LONGER / 2
        assert least <= median <= most
        assert event["allreduce_seconds"][2] > event["allreduce_seconds"][0] + LONGER / 2
        assert sum(event["step_split"].values()) == pytest.approx(1, abs=0.001)
    assert slowed.steps[60]["bound_by"] == "input"
    assert slowed.steps[140]["bound_by"] == "compute"


def test_the_user_is_told_once_and_when_it_is_over(slowed):
    assert slowed.printed.count("warning: rank ") == 2
    assert "is slow since step 29, at reading images" in slowed.printed
    assert slowed.printed.count("is not slow any more at step ") == 1
    line = next(line for line in slowed.printed.splitlines() if "step 60/150" in line)
    assert " % compute " in line


def test_status_shows_it(slowed):
    assert ": running on " in slowed.status_while_it_ran
    assert "slow         rank 1 (" in slowed.status_while_it_ran
    assert "at reading images" in slowed.status_while_it_ran
    assert ": bound by input" in slowed.status_while_it_ran
    assert ": finished " in slowed.status_at_the_end
    assert "100 %, step 150 of 150" in slowed.status_at_the_end
    assert "at computing, since step" in slowed.status_at_the_end
