"""A library that ends a process leaves the images that were being decoded, and they are told."""

from __future__ import annotations

from support.launching import PROGRAMS, REPOSITORY, TINY, launch, train

from hvd_utils.faults import crash_report, in_flight
from hvd_utils.run.checkpoint import list_checkpoints

CRASHING = str(PROGRAMS / "crashing_job.py")


def test_who_crashed_and_what_it_decoded_is_told_by_requeue_and_the_next_launch(
    tiny_data, tmp_path
):
    run = tmp_path / "run"
    options = [*TINY, "--data", str(tiny_data), "--workers", "2", "--output", str(run)]
    options += ["--checkpoint-every", "1", "--epochs", "9", "--max-steps", "30"]
    command = [CRASHING, *options]
    ended = launch(command, ranks=2, by="mpirun", quick=False, PYTHONPATH=str(REPOSITORY))
    assert ended.code not in (0, 2), ended.output
    (line,) = crash_report.traces(run)
    assert line.startswith("rank 1 crashed (Segmentation fault; stacks in ")
    assert f"while images were decoded: {tiny_data}/" in line
    assert "crashing_job.py" in (run / "ranks" / "00001.crash").read_text()

    judged = launch(["-m", "hvd_utils.requeue", str(run), "--code", "139"], by="python")
    assert line in judged.output
    assert judged.code == 75

    again = train(*options, by="python")  # there is no rank 1 any more
    assert again.code == 0, again.output
    assert f"the last launch: {line}" in again.output
    assert list_checkpoints(run)
    assert crash_report.traces(run) == []
    assert not [*run.glob("ranks/*.crash"), *run.glob("ranks/*.images")]


def test_names_outlive_the_process_and_long_lists_are_cut(tmp_path):
    path = tmp_path / "images"
    program = f"""
import os, signal
from pathlib import Path
from hvd_utils.faults import in_flight
in_flight.note(["ignored before there is a file"])
in_flight.keep_in(Path({str(path)!r}))
in_flight.note(f"a/{{number}}.jpg" for number in range(20_000))
in_flight.note(["b/1.jpg", "b/\\udcff.jpg"])
os.kill(os.getpid(), signal.SIGKILL)
"""
    launch(["-c", program], by="python", quick=False, PYTHONPATH=str(REPOSITORY))
    assert in_flight.read(path) == ["b/1.jpg", "b/\udcff.jpg"]
    assert path.stat().st_size == in_flight.BYTES  # of the longer list before
    assert in_flight.read(tmp_path / "none") == []
