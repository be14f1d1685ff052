"""Staging with real ranks: once per node, resumable after any kill, a failing node named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from support.launching import LAUNCHERS, PROGRAMS, kill_tree, launch
from support.quick_python import runs

pytestmark = pytest.mark.long

HELD = str(PROGRAMS / "held_stage.py")
FILES = 60  # of the source
READS = 2  # of each file


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Files in class folders: staging does not care what is in them."""
    folder = tmp_path_factory.mktemp("source")
    random = np.random.default_rng(0)
    for number in range(FILES):
        path = folder / ("train" if number % 5 else "val") / f"class{number % 3}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.bytes(100_000))
    return folder


def start(*arguments: object, ranks: int | None = None, **environment: str) -> subprocess.Popen:
    launcher = [*LAUNCHERS["mpirun"], str(ranks)] if ranks else []
    command = [*launcher, sys.executable, HELD, *map(str, arguments)]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, start_new_session=True, env=os.environ | environment, **pipe)


def staged(folder: Path) -> list[Path]:
    return [path for split in ("train", "val") for path in folder.glob(f"{split}/*/*")]


def wait_for_files(count: int, folder: Path, job: subprocess.Popen) -> None:
    limit = time.monotonic() + 60
    while len(staged(folder)) < count:
        assert job.poll() is None, job.stdout.read()
        assert time.monotonic() < limit
        time.sleep(0.002)


def assert_whole(folder: Path, source: Path) -> None:
    for path in staged(folder):
        assert path.read_bytes() == (source / path.relative_to(folder)).read_bytes(), path


def test_killed_at_any_moment_it_goes_on_and_copies_nothing_twice(source, tmp_path):
    local = tmp_path / "local"
    left = 0
    for count in (1, 13, 14, 30, 40):
        threads = 3  # each of which may be within a file
        reads = READS * (count - len(staged(local))) + threads
        job = start(reads, source, local, "--threads", threads)
        wait_for_files(count, local, job)
        job.send_signal(signal.SIGKILL)
        job.wait()
        assert count <= len(staged(local)) < FILES
        assert_whole(local, source)
        left += len(list((local / ".stage" / "partial").iterdir()))
        assert (local / ".stage" / "unfinished").exists()
    assert left  # some kills hit a file in the middle
    before = {path: path.stat().st_ino for path in staged(local)}
    ended = launch(["-m", "dali_pipeline.stage", str(source), str(local)], by="python")
    assert ended.code == 0, ended.output
    assert f": {FILES - len(before)} of {FILES} files" in ended.output
    assert {path: path.stat().st_ino for path in before} == before
    assert len(staged(local)) == FILES
    assert_whole(local, source)
    assert [path.name for path in (local / ".stage").iterdir()] == ["lock"]


def test_once_for_two_ranks_of_a_node_and_a_second_job_at_the_same_time(source, tmp_path):
    local = tmp_path / "local"
    released = tmp_path / "released"
    job = start(2 * READS + 2, source, local, "--threads", 2, ranks=2, RELEASED=str(released))
    try:
        wait_for_files(2, local, job)
        ranks = [
            process
            for process in psutil.Process(job.pid).children(recursive=True)
            if runs(process, HELD)
        ]
        _, idle = sorted(ranks, key=lambda rank: rank.environ()["OMPI_COMM_WORLD_RANK"])
        before, began = sum(idle.cpu_times()[:2]), time.monotonic()
        console = tmp_path / "second"
        with console.open("w") as out:
            command = [sys.executable, "-m", "dali_pipeline.stage", str(source), str(local)]
            second = subprocess.Popen(command, stdout=out, stderr=out)
        waits = f"another job stages to {local}: waiting for it"
        while waits not in console.read_text():
            assert second.poll() is None, console.read_text()
            assert time.monotonic() < began + 60
            time.sleep(0.05)
        time.sleep(1)
        used, took = sum(idle.cpu_times()[:2]) - before, time.monotonic() - began
        released.touch()
        first, _ = job.communicate(timeout=240)
        second.wait(60)
    finally:
        kill_tree(job)
    said = console.read_text()
    assert (job.returncode, second.returncode) == (0, 0), first + said
    assert first.count(f": {FILES} of {FILES} files") == 1
    assert first.count("staged: train with --data") == 1
    assert "nothing to copy" in said
    assert_whole(local, source)
    assert used < 0.3 * took


def test_a_node_that_fails_is_named_while_the_others_finish(source, tmp_path):
    (tmp_path / "node1").write_text("where a folder should be")
    destination = f"{tmp_path}/node{{rank}}/data"
    ended = launch([HELD, str(READS * FILES), str(source), destination], ranks=2, by="mpirun")
    assert ended.code == 2, ended.output
    assert f"error: node1: {tmp_path}/node1/data" in ended.output
    assert "Traceback" not in ended.output
    assert f"node0: {FILES} of {FILES} files" in ended.output
    assert "staged: train" not in ended.output

    (tmp_path / "node1").unlink()
    ended = launch([HELD, str(READS * FILES), str(source), destination], ranks=2, by="mpirun")
    assert ended.code == 0, ended.output
    assert "node0: nothing to copy" in ended.output
    assert f"node1: {FILES} of {FILES} files" in ended.output
    for node in ("node0", "node1"):
        assert_whole(tmp_path / node / "data", source)


def test_bad_input_is_one_line_and_code_2_on_all_ranks(tmp_path):
    ended = launch(["-m", "dali_pipeline.stage", "/none", str(tmp_path)], ranks=2, by="mpirun")
    assert ended.code == 2, ended.output
    assert [line for line in ended.output.splitlines() if "/none has no train/" in line] == [
        line for line in ended.output.splitlines() if "error" in line.lower()
    ]
    assert os.listdir(tmp_path) == []
