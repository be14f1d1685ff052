"""The study runs from start to end through the real job, and goes on where it was interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from support.launching import PROGRAMS, REPOSITORY, kill_tree, launch

pytestmark = pytest.mark.long

NAMES = "baseline,gradual-warmup,workers-64"


def test_a_study_that_is_interrupted_goes_on(tmp_path):
    study = tmp_path / "study"
    options = ["--output", str(study), "--images", "1024", "--epochs", "2", "--seeds", "1"]
    options += ["--only", NAMES]
    begun = subprocess.Popen(
        [sys.executable, str(PROGRAMS / "study_until_told.py"), *options],
        cwd=REPOSITORY, text=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        said = begun.stdout.readline()  # after its first run
        begun.send_signal(signal.SIGINT)
        said += begun.communicate(timeout=380)[0]
    finally:
        kill_tree(begun)
    name = re.match(r"1/3  (\S+), seed 11: ", said)[1]  # of two that run at once
    assert "interrupted: the same command goes on" in said
    assert begun.returncode == 130
    log = study / name / "seed-11" / "metrics.jsonl"
    first = log.read_text()

    file, errors, curves = (tmp_path / name for name in ("study.json", "errors.png", "curves.png"))
    options += ["--json", str(file), "--plot", str(errors), "--curves", str(curves)]
    command = ["-m", "benchmarks.study", *options]
    done = launch(command, by="python", cwd=REPOSITORY)
    assert done.code == 0, done.output
    assert re.search("[12] of 3 runs are there already", done.output)
    assert log.read_text() == first  # not made again
    written = json.loads(file.read_text())
    assert set(written["table1"]) == {"baseline", "gradual-warmup"}
    assert 0 <= written["figure1"]["workers-64"]["mean"] <= 100
    assert written["table1"]["baseline"]["std"] is None
    assert len(written["verdicts"]) == 11
    assert "| gradual warmup | 32 |" in done.output
    assert errors.stat().st_size
    assert curves.stat().st_size


def test_a_setting_that_is_not_known_is_told(tmp_path):
    command = ["-m", "benchmarks.study", "--output", str(tmp_path), "--only", "baseline,large"]
    done = launch(command, by="python", cwd=REPOSITORY)
    assert done.code == 2
    assert "--only large: there are baseline, no-warmup" in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_fewer_images_than_a_minibatch_are_refused_before_anything_is_made(tmp_path):
    command = ["-m", "benchmarks.study", "--output", str(tmp_path / "study"), "--images", "256"]
    done = launch(command, by="python", cwd=REPOSITORY)
    assert done.code == 2
    assert "--images 256: a minibatch of workers-64 has 512" in done.output
    assert not (tmp_path / "study").exists()
