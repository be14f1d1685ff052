"""One line, a non-zero exit, and the rank that speaks."""

import subprocess
import sys
import time

import pytest
from support.launching import REPOSITORY

from hvd_utils.cli.errors import EXIT_BAD_INPUT, EXIT_FAILED, BadInput
from hvd_utils.cli.run_main import GRACE_SECONDS
from hvd_utils.horovod_backend.node import binding_hint, gpu_index


def fail(raising: str, rank: int = 0, before: str = ""):
    code = (
        f"from pathlib import Path\nfrom hvd_utils.cli import errors, run_main\n{before}\n"
        f"def main():\n    {raising}\nrun_main.run_main(main)"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"HOROVOD_RANK": str(rank)},
    )


def test_bad_input_is_one_line_without_a_traceback():
    ended = fail("raise errors.BadInput('no such\\n thing: set it')")
    assert (ended.returncode, ended.stderr) == (EXIT_BAD_INPUT, "error: no such thing: set it\n")


def test_another_rank_waits_for_rank_0_to_speak_and_says_who_it_is():
    began = time.monotonic()
    ended = fail("raise errors.BadInput('no such thing')", rank=3)
    assert time.monotonic() - began > GRACE_SECONDS
    assert ended.stderr.startswith("error on rank 3 (")
    assert ended.stderr.count("\n") == 1


def test_an_unexpected_error_keeps_its_traceback_in_the_run(tmp_path):
    ended = fail("1 / 0", before=f"run_main.keep_tracebacks_in(Path({str(tmp_path)!r}))")
    report = tmp_path / "error-rank0.txt"
    assert ended.returncode == EXIT_FAILED
    assert ended.stderr == (
        f"error: ZeroDivisionError: division by zero; the traceback is in {report}\n"
    )
    assert "Traceback" in report.read_text()


def test_a_traceback_may_hold_names_that_are_no_text(tmp_path):
    before = f"run_main.keep_tracebacks_in(Path({str(tmp_path)!r}))"
    ended = fail(r"raise ValueError('caf\udce9')", before=before)
    assert ended.returncode == EXIT_FAILED
    assert "caf" in (tmp_path / "error-rank0.txt").read_text()


def test_without_a_folder_the_traceback_is_shown():
    ended = fail("1 / 0")
    assert "Traceback" in ended.stderr
    assert "the traceback is above" in ended.stderr


@pytest.mark.parametrize(
    ("raising", "said"),
    [
        ("print('x' * 10**6, flush=True)", "error: nobody reads the output any more"),
        ("raise BrokenPipeError('a socket of Horovod')", "a socket of Horovod"),
    ],
)
def test_a_pipe_that_nobody_reads_is_told_from_other_pipes(tmp_path, raising, said):
    program = tmp_path / "program.py"
    program.write_text(
        f"from hvd_utils.cli.run_main import run_main\ndef main():\n    {raising}\nrun_main(main)"
    )
    reader = "head -c 1" if "print" in raising else "cat"
    command = f"PYTHONPATH={REPOSITORY} {sys.executable} {program} 2>{tmp_path}/errors | {reader}"
    subprocess.run(["bash", "-c", command], capture_output=True, timeout=240)
    errors = (tmp_path / "errors").read_text()
    assert said in errors
    assert ("Traceback" in errors) == ("socket" in said)


@pytest.mark.parametrize(
    ("local_rank", "local_size", "visible", "index"),
    [(0, 8, 8, 0), (7, 8, 8, 7), (5, 8, 1, 0), (1, 2, 8, 1)],
)
def test_one_gpu_a_rank_also_where_each_sees_only_its_own(local_rank, local_size, visible, index):
    assert gpu_index(local_rank, local_size, visible) == index


def test_a_rank_bound_to_too_few_cores_is_told_so(monkeypatch):
    monkeypatch.delenv("OMPI_COMM_WORLD_RANK", raising=False)
    assert binding_hint(1, 64, 2) is None  # a scheduler's wish
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    assert "1 of its 64 cores" in binding_hint(1, 64, 2)
    assert binding_hint(64, 64, 2) is None
    assert binding_hint(1, 2, 2) is None
    assert binding_hint(1, 2, 4) is None


def test_more_processes_than_gpus_are_refused():
    with pytest.raises(BadInput, match="8 processes but 4 GPUs"):
        gpu_index(0, 8, 4)
