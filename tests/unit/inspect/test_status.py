"""How a run stands, told from its folder: made-up ones in every state."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hvd_utils.cli.errors import BadInput
from hvd_utils.faults.folder_lock import FolderLock, is_held
from hvd_utils.faults.heartbeat import FINISHED as RANK_FINISHED
from hvd_utils.faults.heartbeat import Heartbeat, heartbeat_path, write_heartbeat
from hvd_utils.inspect import status
from hvd_utils.inspect.run_state import (
    DEAD,
    FINISHED,
    RUNNING,
    SILENT,
    STOPPED,
    launches,
    read_state,
)
from hvd_utils.run.checkpoint import checkpoint_path
from hvd_utils.run.event_log import METRICS

NOW = 1_800_000_000.0
SETTINGS = "recipe: paper\nmodel: resnet50\nbatch_per_worker: 32\nepochs: 90\nmax_steps: null\n"
TIMINGS = {"step_split": {"data": 0.6, "compute": 0.3, "allreduce": 0.1}, "bound_by": "input"}
SLOW = {"slow_rank": 17, "slow_host": "node03", "slow_at": "data", "slow_ratio": 1.93}
SLOW["slow_since"] = 1200


def start(step=0, ago=1000.0, **values):
    facts = {"processes": 256, "hosts": {f"node{i:02}": 8 for i in range(32)}, "devices": ["cpu"]}
    run = {"workers": 256, "minibatch": 8192, "total_steps": 14075, "epochs": 90}
    return {"event": "start", "time": NOW - ago, "step": step, **run, **facts, **values}


def step(number, ago, **values):
    numbers = {"epoch": 0, "loss": 6.9, "lr": 0.1, "images_per_second": 21234.0}
    return {"event": "step", "time": NOW - ago, "step": number, **numbers, **values}


def epoch(number, at, error, ago=500.0):
    errors = {"val_top1_error": error, "val_top5_error": error / 4}
    return {"event": "epoch", "time": NOW - ago, "epoch": number, "step": at, **errors}


@pytest.fixture
def write(tmp_path):
    """A function that makes a run's folder of events, last touched so many seconds ago."""

    def make(*events, settings=SETTINGS, ago=2.0, holder=None):
        run = tmp_path / "run"
        run.mkdir()
        (run / METRICS).write_text("".join(json.dumps(event) + "\n" for event in events))
        (run / "settings.yaml").write_text(settings)
        (run / "lock").write_text(json.dumps(holder or {"host": socket.gethostname(), "pid": 7}))
        touch(run, ago)
        return run

    return make


def touch(run: Path, ago: float) -> None:
    for path in run.rglob("*"):
        os.utime(path, (NOW - ago, NOW - ago))


def shown(run: Path) -> dict[str, str]:
    """Lines of a run's status by their names; its state under "state"."""
    text = status.show(read_state(run, NOW))
    assert max(map(len, text.splitlines())) <= status.WIDTH
    lines, name = {"state": ""}, "state"
    for line in text.splitlines():
        if lines["state"] and not line.startswith(" "):
            name = line[: status.LABEL].strip()
            line = line[status.LABEL :]
        lines[name] = f"{lines.get(name, '')} {line.strip()}".strip()
    return lines


def test_a_running_job_is_shown_with_all_that_is_known(write):
    windows = [step(number, 1000 - number / 2, **TIMINGS) for number in range(20, 1980, 20)]
    windows.append(step(1980, 10, **TIMINGS, **SLOW))
    run = write(
        start(),
        *windows[:40],
        epoch(0, 156, 99.1),
        epoch(1, 313, 95.5),
        epoch(2, 469, 96.25),
        {"event": "bad_images", "time": NOW, "epoch": 0, "step": 156, "count": 3, "images": {}},
        *windows[40:],
    )
    checkpoint_path(run, 1800).parent.mkdir()
    checkpoint_path(run, 1800).touch()
    for rank in range(256):
        write_heartbeat(run, Heartbeat(rank, f"node{rank // 8}", 1, 1, 1980, "computing", 0, 0.0))
    touch(run, 4)
    os.utime(heartbeat_path(run, 9), (NOW - 300, NOW - 300))
    lock = FolderLock(run)
    lock.acquire()
    try:
        lines = shown(run)
    finally:
        lock.release()
    assert f": running on {socket.gethostname()}, pid {os.getpid()}" in lines.pop("state")
    pace = 990 / 1980
    left = pace * (14075 - 1980) - 10
    assert lines == {
        "recipe": "paper: resnet50, k = 256 workers of 32 images, kn = 8,192",
        "processes": "256 on 32 hosts, cpu",
        "ranks": "255 of 256 heard of; not rank 9 (node1): last 5 min ago, computing at step 1,980",
        "progress": "[##--------] 14 %, step 1,980 of 14,075, epoch 4 of 90".replace(
            "##--------", lines["progress"][1 : 1 + status.BAR]
        ),
        "training": "loss 6.9000, rate 0.1, 21,234 images/s",
        "validation": "top-1 error 96.25 %, top-5 24.06 %; best 95.50 % in epoch 2",
        "step": "data 60 % compute 30 % allreduce 10 %: bound by input",
        "slow": "rank 17 (node03): 1.9 times the median, at reading images, since step 1,200",
        "time": f"16:40 elapsed, {status._clock(left)} left",
        "checkpoints": "checkpoint-00001800.pt 4 s ago, 1 kept",
        "bad images": "3",
    }


def test_a_finished_run(write):
    end = {"event": "end", "time": NOW - 7200, "step": 14075, "median_top1_error": 23.74}
    run = write(start(ago=11000), step(14075, 7210), epoch(89, 14075, 23.6), end, ago=7200)
    lines = shown(run)
    assert lines["state"].endswith(": finished 2 h ago")
    assert "100 %" in lines["progress"]
    assert lines["validation"].endswith("median of the last 1: 23.74 %")
    assert lines["time"] == "1:03:20 elapsed"


def test_a_run_that_was_told_to_stop(write):
    stop = {"event": "stop", "time": NOW - 90, "step": 300}
    lines = shown(write(start(), step(300, 95), stop, ago=90))
    assert "told to stop, stopped 90 s ago, all saved; the same command goes on" in lines["state"]
    assert "left" in lines["time"]


def test_a_job_that_died_here_is_known_to_be_dead_at_once(write):
    run = write(start(), step(300, 3))
    assert read_state(run, NOW).state == DEAD
    (run / "error-rank0.txt").touch()
    touch(run, 2)
    assert ": no sign of life since 20" in shown(run)["state"]
    assert "(2 s ago); see error-rank0.txt; the same command goes on" in shown(run)["state"]


def test_a_job_of_another_host_is_judged_by_its_signs_of_life(write):
    """Where locks of other hosts cannot be seen."""
    run = write(start(), step(300, 3), holder={"host": "elsewhere", "pid": 1})
    assert read_state(run, NOW).state == RUNNING
    touch(run, SILENT + 1)
    assert read_state(run, NOW).state == DEAD
    report = Heartbeat(0, "elsewhere", 1, 1, 301, "computing", 0, 0.0)
    write_heartbeat(run, report)
    os.utime(heartbeat_path(run, 0), (NOW, NOW))
    assert read_state(run, NOW).state == RUNNING


def test_a_held_lock_without_signs_of_life_is_doubted(write):
    run = write(start(), step(300, 600), ago=600)
    lock = FolderLock(run)
    lock.acquire()
    touch(run, 600)
    try:
        assert shown(run)["state"].endswith("but without a sign of life for 10 min")
    finally:
        lock.release()


def test_launches_are_told_apart(write):
    """Elapsed is the time that they trained; pace and timings are those of the last one."""
    stop = {"event": "stop", "time": NOW - 7000, "step": 100}
    run = write(
        start(ago=8000),
        step(100, 7000, **TIMINGS),
        stop,
        start(step=100, ago=200),
        step(200, 100),
    )
    state = read_state(run, NOW)
    assert [len(launch) for launch in launches(state.events)] == [3, 2]
    assert state.split is None
    assert state.elapsed == (100, 1100)
    lines = shown(run)
    assert lines["restarts"] == "1"
    assert "18:20 elapsed, 01:40 of it in the last launch" in lines["time"]
    assert state.left == pytest.approx(13875)


def test_a_run_of_before_these_fields_were_logged(write):
    """The end is reckoned from the epochs so far."""
    early = start()
    del early["total_steps"], early["epochs"]
    state = read_state(write(early, step(156, 500), epoch(0, 156, 99.0)), NOW)
    assert state.total_steps == 14040
    assert "step" not in shown(state.folder)


def test_a_job_that_has_only_just_begun(tmp_path):
    with pytest.raises(BadInput, match="is not the folder of a run"):
        read_state(tmp_path, NOW)
    lock = FolderLock(tmp_path)
    lock.acquire()
    assert is_held(tmp_path)
    shown = status.show(read_state(tmp_path, time.time()))
    assert ": starting on " in " ".join(shown.split())  # in whichever line
    lock.release()
    assert is_held(tmp_path) is False
    (tmp_path / METRICS).write_text('{"event": "st')  # being written
    assert "step 0, epoch 1" in status.show(read_state(tmp_path, NOW))


def test_ranks_that_are_done_are_no_silence(write):
    end = {"event": "end", "time": NOW, "step": 14075, "median_top1_error": None}
    run = write(start(processes=1), step(14075, 0), end)
    write_heartbeat(run, Heartbeat(0, "a", 1, 1, 14075, RANK_FINISHED, 0, 0.0))
    state = read_state(run, NOW)
    assert state.state == FINISHED
    assert STOPPED not in status.show(state)


def test_the_command_needs_no_torch_and_names_what_is_no_run(tmp_path, write):
    run = write(start(), step(300, 3))
    program = f"""
import sys
from hvd_utils import status
from hvd_utils.cli.run_main import run_main
sys.argv = ["status", {str(run)!r}, *sys.argv[1:]]
if len(sys.argv) == 2:
    status.main()
    assert not {{"torch", "horovod", "pydantic"}} & set(sys.modules), sorted(sys.modules)
run_main(status.main)
"""

    def ask(*more):
        command = [sys.executable, "-c", program, *more]
        return subprocess.run(command, capture_output=True, text=True)

    assert ask().stdout.count("step 300 of 14,075") == 2
    for wrong, words in (
        ((str(tmp_path),), f"error: {tmp_path} is not the folder of a run"),
        (("--watch", "-1"), "error: --watch -1: give seconds greater than 0"),
    ):
        ended = ask(*wrong)
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
        assert words in ended.stderr
