"""A job that is told to stop saves the step that it is at, leaves by 75, and goes on from there."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from support.kills import metrics
from support.launching import JOB, LAUNCHERS, PROGRAMS, REPOSITORY, TINY, kill_tree, launch, train
from support.quick_python import quick_python, runs
from support.running_job import RunningJob

from hvd_utils.cli.errors import EXIT_RESUME
from hvd_utils.inspect.compare import differences, newest
from hvd_utils.run.checkpoint import list_checkpoints
from hvd_utils.run.event_log import read_events

pytestmark = pytest.mark.long

WAITING = str(PROGRAMS / "waiting_job.py")
LONG = (*TINY, "--epochs", "9000", "--reference-rate", "0.0125")


def stopped(job: RunningJob) -> int:
    """Check that the job ended by its request, all saved; return the step that it was at."""
    assert job.finish() == EXIT_RESUME, job.console
    assert not job.ranks()
    assert "Traceback" not in job.console
    (stop,) = [event for event in read_events(job.output) if event["event"] == "stop"]
    assert newest(job.output)["step"] == stop["step"]
    assert f"saved after step {stop['step']}" in job.console
    assert f"--output {job.output} goes on" in job.console
    return stop["step"]


@pytest.mark.parametrize(
    ("by", "sent", "to"),
    [
        ("mpi", signal.SIGTERM, 0),
        ("mpirun", signal.SIGINT, 1),
        ("gloo", signal.SIGUSR1, 1),
        ("mpirun", signal.SIGUSR1, "launcher"),
        ("mpi", signal.SIGUSR1, "launcher"),
        ("gloo", signal.SIGTERM, "launcher"),
        ("python", signal.SIGTERM, "launcher"),
    ],
)
def test_a_signal_to_one_rank_or_the_launcher_is_enough(tiny_data, tmp_path, by, sent, to):
    options = (*LONG, "--data", tiny_data, "--checkpoint-every", "1h")
    with RunningJob(tmp_path / "run", *options, by=by, ranks=1 if by == "python" else 2) as job:
        job.train_until(5)
        (job.process if to == "launcher" else job.rank(to)).send_signal(sent)
        assert stopped(job) >= 5


PARTED = (*TINY, "--epochs", "20", "--reference-rate", "0.0125", "--log-every", "7")


def assert_the_same(parts: Path, whole: Path) -> None:
    assert set(differences(newest(parts), newest(whole)).values()) == {0.0}
    assert metrics(parts) == metrics(whole)


def test_a_stop_in_the_middle_of_an_epoch_and_of_a_window_changes_nothing(tiny_data, tmp_path):
    """The run ends with the bits and the lines of the undisturbed one."""
    options = (*PARTED, "--data", tiny_data, "--workers", "2")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(*options, "--output", whole, ranks=2, by="mpirun").code == 0
    with RunningJob(parts, *options, by="mpirun", pause=0.1) as job:
        job.train_until(8)
        job.rank(1).send_signal(signal.SIGTERM)
        stopped(job)
    assert train(*options, "--output", parts, ranks=2, by="mpirun").code == 0
    assert_the_same(parts, whole)


def test_a_stop_between_an_epochs_last_step_and_its_validation_changes_nothing(tiny_data, tmp_path):
    """The validation is broken off, and made after the restart, which has no step to make first."""
    options = (*PARTED, "--data", tiny_data, "--max-steps", "20")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(*options, "--output", whole, by="python").code == 0
    program = f"""
import os, runpy, signal, sys, time
from hvd_utils.training import loops
whole, made = loops.minibatch_loss, 0
def told_to_stop(*arguments):
    global made
    made += 1
    if made == 8:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    return whole(*arguments)
loops.minibatch_loss = told_to_stop
sys.argv = {["job", *map(str, options), "--output", str(parts)]!r}
runpy.run_path({JOB!r}, run_name="__main__")
"""
    ended = launch(["-c", program], by="python")
    assert ended.code == EXIT_RESUME, ended.output
    progress = newest(parts)["progress"]
    assert (progress["step"], progress["top1_errors"]) == (8, [])  # 30 images, 4 a step
    assert train(*options, "--output", parts, by="python").code == 0
    assert_the_same(parts, whole)


def test_mpirun_leaves_half_a_second_which_is_enough_here(tiny_data, tmp_path):
    """It sends SIGTERM on, and SIGKILL soon after; its own code is 1."""
    options = (*LONG, "--data", tiny_data, "--checkpoint-every", "1h")
    with RunningJob(tmp_path / "run", *options, by="mpirun") as job:
        job.train_until(5)
        job.process.send_signal(signal.SIGTERM)
        assert job.finish() != 0
        job.wait_for_no_ranks()
    assert newest(tmp_path / "run")["step"] >= 5


@pytest.fixture(scope="module")
def checkpoint(tiny_data, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("checkpoint")
    assert train(*TINY, "--max-steps", 1, "--output", run, by="python").code == 0
    return list_checkpoints(run)[0]


@pytest.mark.parametrize("where", ["data", "evaluate"])
@pytest.mark.parametrize(
    ("by", "sent", "code"),
    [
        ("python", signal.SIGTERM, EXIT_RESUME),
        ("python", signal.SIGINT, 130),
        ("mpirun", signal.SIGUSR1, EXIT_RESUME),
        ("gloo", signal.SIGINT, 130),
    ],
)
def test_where_nothing_is_to_be_saved_it_leaves_at_once(
    tmp_path, checkpoint, where, by, sent, code
):
    """As in the start, while the data are looked for, and in an evaluation."""
    launcher = [] if by == "python" else [*LAUNCHERS[by], "2"]
    command = [*launcher, *quick_python(), WAITING, where, *map(str, TINY)]
    command += ["--eval-only", str(checkpoint)] if where == "evaluate" else []
    console = tmp_path / "console"
    with console.open("w") as out:
        process = subprocess.Popen(
            [*command, "--workers", "2", "--output", str(tmp_path / "run")],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
    try:
        limit = time.monotonic() + 90
        while "waiting" not in console.read_text():
            assert time.monotonic() < limit
            assert process.poll() is None, console.read_text()
            time.sleep(0.05)
        ranks = [process] if by == "python" else _ranks(process)
        for rank in ranks:
            rank.send_signal(sent)
        process.wait(20)
    finally:
        if process.poll() is None:
            kill_tree(process)
    output = console.read_text()
    assert f"told to stop ({sent.name}): there is nothing to save" in output
    assert "Traceback" not in output
    assert process.returncode == code, output
    assert not list_checkpoints(tmp_path / "run")


def _ranks(launcher: subprocess.Popen) -> list[psutil.Process]:
    below = psutil.Process(launcher.pid).children(recursive=True)
    return [process for process in below if runs(process, WAITING)]


def test_two_ctrl_c_stop_at_once(tiny_data, tmp_path):
    """In a pause of an hour, in which no step ends."""
    with RunningJob(tmp_path / "run", *LONG, by="python", pause=3600) as job:
        job.wait_for(lambda: "paused" in job.console)
        job.process.send_signal(signal.SIGINT)
        job.wait_for(lambda: "told to stop (SIGINT)" in job.console)
        assert job.process.poll() is None
        job.process.send_signal(signal.SIGINT)
        assert job.finish(10) == 130
    assert not list_checkpoints(tmp_path / "run")
