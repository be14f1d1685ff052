"""Trackers in the job: one run there for all launches, and none of them ends training."""

from __future__ import annotations

import os

import pytest
from support.fake_wandb import write_fake_wandb
from support.launching import REPOSITORY, TINY, launch, train
from support.wandb_files import rows


@pytest.mark.long
def test_a_run_that_is_broken_off_twice_is_one_run_at_wandb(tiny_data, tmp_path):
    run = tmp_path / "run"
    options = ("--data", tiny_data, *TINY, "--output", run, "--track", "wandb")
    for steps in (2, 4, 10):
        ended = train(*options, "--max-steps", steps, ranks=2, WANDB_MODE="offline")
        assert ended.code == 0, ended.output
        told = f"wandb sync {run}/wandb/offline-run-*", "--track wandb was not done in "
        assert any(words in ended.output for words in told)
    # On a busy machine some of it may be missing, with the line that says what to do.
    sent = launch(["-m", "hvd_utils.track", str(run), "wandb"], by="python", WANDB_MODE="offline")
    assert sent.code == 0, sent.output
    assert told[0] in sent.output
    assert [row["step"] for row in rows(run) if "train/loss" in row] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert len({path.stem for path in run.glob("wandb/offline-run-*/*.wandb")}) == 1


@pytest.mark.long
def test_trackers_are_not_imported_by_a_job_that_has_none(tiny_data, tmp_path):
    """Not in a forked process: its timm imports wandb where that is installed."""
    options = ["--data", str(tiny_data), *TINY, "--output", str(tmp_path), "--max-steps", "1"]
    program = "import sys, train_imagenet\nsys.argv = ['job', *OPTIONS]\ntrain_imagenet.main()\n"
    program += "print('imported:', [m for m in ('wandb', 'mlflow') if m in sys.modules])"
    command = ["-c", program.replace("OPTIONS", repr(options))]
    ended = launch(command, by="python", quick=False, PYTHONPATH=str(REPOSITORY))
    assert "imported: []" in ended.output, ended.output


def test_a_tracker_that_raises_does_not_end_training(tiny_data, tmp_path):
    write_fake_wandb(tmp_path, "raises later")
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    options = ("--data", tiny_data, *TINY, "--output", tmp_path / "run", "--track", "wandb")
    ended = train(*options, ranks=2, PYTHONPATH=path)
    assert ended.code == 0, ended.output
    assert ended.output.count("warning: --track wandb") == 1
    assert "done: median top-1 error" in ended.output


def test_a_tracker_that_cannot_be_used_is_said_before_training(tiny_data, tmp_path):
    options = ("--data", tiny_data, *TINY, "--output", tmp_path / "run", "--track", "mlflow")
    ended = train(*options, ranks=2, MLFLOW_TRACKING_URI="")
    assert ended.code == 2
    assert "error: --track mlflow: " in ended.output
    assert not (tmp_path / "run").exists()
