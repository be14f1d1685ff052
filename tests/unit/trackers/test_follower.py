"""The processes that send a run's log: whatever a tracker does, one line and no waiting."""

from __future__ import annotations

import os
import time

import pytest
from support.endings import assert_nobody_is_left
from support.fake_wandb import write_fake_wandb

from hvd_utils.run.event_log import METRICS
from hvd_utils.trackers import follower
from hvd_utils.trackers.follower import Followers

STEP = '{"event": "step", "time": 1.0, "step": 2, "loss": 1.0, "lr": 0.1, "images_per_second": 9}\n'
WORDS = {
    "raises at once": "ConnectionError: no such server; training goes on",
    "raises later": "ZeroDivisionError",
    "hangs": "was not done in",
    "hangs at its end": "was not done in",
    "dies": "ended with code -9",
    "cannot be imported": "ImportError: libsomething.so is missing",
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run's folder with one step in its log."""
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setattr(follower, "ROOT", tmp_path)  # which comes first for the process
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / METRICS).write_text(STEP)
    return folder


@pytest.mark.parametrize("harm", WORDS)
def test_a_tracker_that_fails_leaves_one_warning_and_no_process(run, monkeypatch, harm):
    write_fake_wandb(run.parent, harm)
    if harm.startswith("hangs"):
        monkeypatch.setattr(follower, "LIMIT", 3.0)
    lines: list[str] = []
    followers = Followers(run, ["wandb"], lines.append)
    followers.check()
    followers.close()
    (line,) = lines
    assert line.startswith("warning: --track wandb")
    assert WORDS[harm] in line
    assert f"python -m hvd_utils.track {run} wandb sends what is missing" in line
    assert_nobody_is_left(run)
    followers.check()
    followers.close()
    assert lines == [line]


def test_what_a_tracker_has_to_say_while_it_goes_on_is_shown_once(run):
    write_fake_wandb(run.parent, "raises later")
    lines: list[str] = []
    followers = Followers(run, ["wandb"], lines.append)
    until = time.monotonic() + 60
    while not lines:
        assert time.monotonic() < until
        followers.check()
        time.sleep(0.05)
    followers.close()
    assert len(lines) == 1


def test_a_folder_that_cannot_be_written_ends_no_run(run):
    (run / follower.FOLDER).write_text("a file")
    lines: list[str] = []
    followers = Followers(run, ["wandb"], lines.append)
    followers.check()
    followers.close()
    assert len(lines) == 1
    assert "File exists" in lines[0]
