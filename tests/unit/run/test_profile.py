"""Which steps a profile traces, on which ranks, and what it does to a run without one: nothing."""

from __future__ import annotations

import gzip
import json
from types import SimpleNamespace

import pytest
import torch

from hvd_utils.cli.errors import BadInput, Stopped
from hvd_utils.config.command_line import load_settings
from hvd_utils.faults.heartbeat import COMPUTING, FINISHING, READING, WAITING
from hvd_utils.horovod_backend.world import World
from hvd_utils.run import profile
from hvd_utils.run.profile import profiled

WORLD = World(0, 1, 0, 1, "here", torch.device("cpu"), 1)
STEP = (READING, COMPUTING, READING, COMPUTING, WAITING, COMPUTING, FINISHING)  # of two passes


@pytest.fixture
def run(tmp_path):
    """A run of 20 steps that has made 2, and notes what it is told."""
    beats, lines = [], []

    def heartbeat(step, doing):
        beats.append((step, doing))

    return SimpleNamespace(
        output=tmp_path, step=2, last_step=20, heartbeat=heartbeat, beats=beats,
        print_line=lines.append, lines=lines,
    )  # fmt: skip


def settings(*arguments):
    return load_settings(["--recipe", "demo", *arguments], {})


def train(run, *arguments, world=WORLD, until=20, stopped=False):
    """Make the steps of a run, each an addition of numbers as many as the step's own (from 1)."""
    with profiled(run, settings(*arguments), world) as heartbeat:
        for step in range(run.step, until):
            for doing in STEP:
                heartbeat(step, doing)
                if doing == WAITING:
                    torch.add(torch.zeros(step + 1), 1)
        if stopped:
            raise Stopped("told to stop")


def traced(path):
    """Return the names of what a trace has, in order."""
    with gzip.open(path) as file:
        events = [event for event in json.load(file)["traceEvents"] if "dur" in event]
    return [event["name"] for event in sorted(events, key=lambda event: event["ts"])]


def parts(path):
    return [name for name in traced(path) if name in ("data", "compute", "allreduce")]


ONE = ["data", "compute", "data", "compute", "allreduce", "compute"]


def test_without_a_profile_the_loop_gets_the_runs_own_heartbeat(run):
    with profiled(run, settings(), WORLD) as heartbeat:
        assert heartbeat is run.heartbeat
    other = World(1, 2, 0, 1, "here", torch.device("cpu"), 1)
    with profiled(run, settings("--profile", "5-6"), other) as heartbeat:  # another rank's
        assert heartbeat is run.heartbeat


def test_the_named_steps_are_traced_with_the_stopwatchs_parts(run):
    train(run, "--profile", "5-6")
    path = run.output / "profile/steps-5-6/rank-0.json.gz"
    assert parts(path) == ONE * 2
    assert traced(path).count("aten::add") == 2
    assert [doing for _, doing in run.beats] == list(STEP) * 18  # the run is told all the same
    (line,) = run.lines
    assert "steps 5 to 6" in line
    assert str(path.parent) in line
    assert path.name in line


def test_a_run_that_goes_on_in_the_middle_traces_the_rest_and_says_so(run):
    train(run, "--profile", "2-4")
    assert parts(run.output / "profile/steps-3-4/rank-0.json.gz") == ONE * 2
    assert "past step 2: the trace begins after it" in run.lines[0]
    run.step = 4
    train(run, "--profile", "2-4")
    assert "past step 4: nothing is traced" in run.lines[-1]


def test_a_run_that_is_stopped_in_the_middle_leaves_what_was_traced(run):
    with pytest.raises(Stopped):
        train(run, "--profile", "5-20", until=6, stopped=True)
    assert parts(run.output / "profile/steps-5-20/rank-0.json.gz") == ONE * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--profile", "20-21"], "the run ends after step 20"),
        (["--profile", "5-6", "--profile-ranks", "0,1"], "there are ranks 0 to 0"),
    ],
)
def test_steps_and_ranks_that_are_not_there_are_refused(run, arguments, words):
    with pytest.raises(BadInput, match=words):
        train(run, *arguments)


def test_a_folder_that_cannot_be_written_ends_no_run(run, capsys):
    (run.output / profile.FOLDER).write_text("a file")
    train(run, "--profile", "5-6")
    assert "warning: the profile of rank 0 is lost" in capsys.readouterr().out
    assert run.beats[-1] == (19, FINISHING)


def test_on_a_gpu_the_parts_are_nvtx_ranges_too(run, monkeypatch):
    """Of one that is only pretended: for Nsight Systems; and the device is waited for."""
    ranges, waits = [], []
    monkeypatch.setattr(torch.cuda.nvtx, "range_push", ranges.append)
    monkeypatch.setattr(torch.cuda.nvtx, "range_pop", lambda: ranges.append(None))
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    made = profile.profile
    monkeypatch.setattr(profile, "profile", lambda activities, **more: made(**more))
    gpu = World(0, 1, 0, 1, "here", torch.device("cuda", 0), 1)
    train(run, "--profile", "5-5", world=gpu)
    assert ranges == [word for part in ONE for word in (part, None)]
    assert waits == [gpu.device] * 2
