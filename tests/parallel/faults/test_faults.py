"""Faults made on purpose while a job trains: each ends it by one clear line, with nothing lost."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
from support.images import write_jpegs
from support.launching import JOB, PROGRAMS, REPOSITORY, TINY, launch, train
from support.running_job import RunningJob

from hvd_utils.cli.errors import EXIT_HANGS
from hvd_utils.run.checkpoint import list_checkpoints, load_checkpoint
from hvd_utils.run.event_log import METRICS, read_events

pytestmark = pytest.mark.long

LATE = str(PROGRAMS / "late_job.py")
HERE = {"PYTHONPATH": str(REPOSITORY)}
LONG = (*TINY, "--epochs", "9000", "--reference-rate", "0.0125", "--checkpoint-every", "2")


def one_line(job: RunningJob, code: int = 2) -> str:
    """Check that all ranks are gone without a traceback; return the line that says why."""
    assert job.finish() == code, job.console
    job.wait_for_no_ranks()
    assert "Traceback" not in job.console
    return the_error(job.console)


def the_error(console: str) -> str:
    (line,) = [line for line in console.splitlines() if "error: " in line or "error on" in line]
    return line


def fill(disk: Path) -> None:
    """Write until there is no room for another byte."""
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_disk_that_fills_up_while_logging(tiny_data, tmp_path, small_disk):
    options = (*LONG, "--data", tiny_data, "--checkpoint-every", "1h")
    disk = small_disk("8m")
    run = tmp_path / "run"
    run.symlink_to(disk / "run")
    (disk / "run").mkdir()
    with RunningJob(run, *options, by="mpi") as job:
        job.train_until(5)
        job.wait_for(lambda: list_checkpoints(run))
        fill(disk)
        line = one_line(job)
    assert "No space left" in line
    assert "make room or choose another --output" in line
    assert load_checkpoint(list_checkpoints(run)[0])["step"] > 0


def test_the_output_folder_removed(tiny_data, tmp_path):
    run = tmp_path / "run"
    with RunningJob(run, *LONG, "--data", tiny_data, "--checkpoint-every", "1h", by="gloo") as job:
        job.train_until(5)
        shutil.rmtree(run)
        line = one_line(job)
    assert f"the folder {run} was removed while the run went on" in line
    assert load_checkpoint(list_checkpoints(run)[0])["step"] >= 5


def test_an_image_that_vanishes_in_mid_epoch(tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    write_jpegs(data / "train", {"ant": 8, "bee": 8})
    write_jpegs(data / "val", {"ant": 1, "bee": 1})
    with RunningJob(run, *LONG, "--data", data, by="mpirun") as job:
        job.train_until(5)
        (data / "train" / "bee" / "003.JPEG").unlink()
        line = one_line(job)
    assert str(data / "train" / "bee" / "003.JPEG") in line
    assert "--on-bad-image skip" in line
    assert load_checkpoint(list_checkpoints(run)[0])["step"] >= 4


def test_a_second_job_with_the_same_output_refuses(tiny_data, tmp_path):
    run = tmp_path / "run"
    with RunningJob(run, *LONG, "--data", tiny_data, by="mpi") as job:
        job.train_until(2)
        second = train(*LONG, "--data", tiny_data, "--output", run, ranks=2, by="mpirun")
        assert second.code == 2
        line = the_error(second.output)
        assert f"{run} is in use by a job on " in line
        assert f"pid {job.rank(0).pid}" in line
        step = job.step()
        job.train_until(step + 2)  # and the first goes on


def test_a_jump_of_the_clock_changes_nothing(tmp_path):
    """An hour back and a day forth, in turn, at every look at the clock."""
    program = f"""
import itertools, runpy, sys, time
real, jumps = time.time, itertools.cycle([0, -3600, 86400])
time.time = lambda: real() + next(jumps)
sys.argv = ["job", *{[*map(str, TINY)]!r}, "--checkpoint-every", "10min", "--stall-timeout", "30",
            "--max-steps", "40", "--output", {str(tmp_path)!r}]
runpy.run_path({JOB!r}, run_name="__main__")
"""
    ended = launch(["-c", program], ranks=2)
    assert ended.code == 0, ended.output
    assert [e["step"] for e in read_events(tmp_path) if e["event"] == "step"] == [*range(1, 41)]


def test_a_rank_that_hangs_is_named_by_the_others(tiny_data, tmp_path):
    """Stopped by SIGSTOP, so that Horovod's own thread answers no more."""
    options = (*LONG, "--data", tiny_data, "--stall-timeout", "5")
    with RunningJob(tmp_path / "run", *options, by="mpi") as job:
        job.train_until(5)
        job.rank(1).suspend()
        line = one_line(job, EXIT_HANGS)
    assert "rank 1 (" in line
    assert "hangs: not heard of" in line
    assert f"the same command with --output {tmp_path / 'run'} goes on" in line


def test_a_rank_that_dies_ends_the_job_which_says_how_to_go_on(tiny_data, tmp_path):
    run = tmp_path / "run"
    with RunningJob(run, *LONG, "--data", tiny_data, by="mpi") as job:
        job.train_until(5)
        job.rank(1).kill()
        assert job.finish(30) != 0
        job.wait_for_no_ranks()
    assert "rank 1" in job.console  # mpirun's words, with the host
    assert f"if it is interrupted: the same command with --output {run} goes on" in job.console


def poisoned_job(rank: int, after: int, *arguments: object) -> list[str]:
    """The job, in which a rank's loss is not a number once ``after`` steps were made."""
    program = f"""
import runpy, sys
import horovod.torch as hvd
from hvd_utils.run import nonfinite_trace
from hvd_utils.training import loops
whole, made = loops.minibatch_loss, 0
def poisoned(*arguments):
    global made
    made += 1
    return whole(*arguments) * (float("nan") if hvd.rank() == {rank} and made > {after} else 1)
loops.minibatch_loss = nonfinite_trace.minibatch_loss = poisoned
sys.argv = {["job", *map(str, arguments)]!r}
runpy.run_path({JOB!r}, run_name="__main__")
"""
    return ["-c", program]


def test_a_loss_that_is_not_a_number_is_found_on_its_step_and_traced(tiny_data, tmp_path):
    options = ("--data", tiny_data, "--output", tmp_path, *TINY, "--log-every", "100")
    ended = launch(poisoned_job(1, 4, *options, "--checkpoint-every", "1"), ranks=2)
    assert ended.code == 2, ended.output
    line = the_error(ended.output)
    assert "the loss became not finite at step 5, learning rate" in line
    assert "on rank 1 (" in line
    assert "logical worker 1, images " in line
    saved = load_checkpoint(list_checkpoints(Path(tmp_path))[0])
    assert saved["step"] == 4
    assert all(value.isfinite().all() for value in saved["model"].values())
    assert (tmp_path / METRICS).exists()


def test_a_loss_that_is_not_finite_is_noticed_by_all_ranks_together(tmp_path):
    """As on a GPU, where nobody looks at once, and rank 0 saves in the middle of a window."""
    run = tmp_path / "run"
    options = [*TINY, "--workers", "2", "--reference-rate", "1e20", "--warmup", "none"]
    options += ["--log-every", "10", "--checkpoint-every", "1", "--stall-timeout", "30"]
    ended = launch([LATE, *map(str, options), "--output", str(run)], ranks=2, by="mpirun", **HERE)
    assert ended.code == 2, ended.output
    line = the_error(ended.output)
    assert "became not finite at step" in line
    assert "learning rate" in line
    steps = [load_checkpoint(path)["step"] for path in list_checkpoints(run)]
    reported = int(line.split("at step ")[1].split(",")[0])
    assert all(step < reported for step in steps)


def test_a_loss_that_is_not_finite_at_the_end_of_a_launch_is_noticed_by_all_ranks(tmp_path):
    options = [*TINY, "--workers", "2", "--reference-rate", "1e20", "--warmup", "none"]
    options += ["--log-every", "10", "--max-steps", "8", "--stall-timeout", "30"]
    ended = launch(
        [LATE, *options, "--output", str(tmp_path / "run")], ranks=2, by="mpirun", **HERE
    )
    assert ended.code == 2, ended.output
    assert "became not finite at step" in the_error(ended.output)
