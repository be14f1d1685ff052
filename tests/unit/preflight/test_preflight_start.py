"""The weights that a job starts from and its trackers are looked at before it."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import pytest
import torch
from support.checkpoints import some_model

from hvd_utils.cli.errors import BadInput
from hvd_utils.preflight import child_tasks
from hvd_utils.preflight.checks.table import Preflight
from hvd_utils.preflight.coordinator import Answers
from hvd_utils.preflight.options import read_options
from hvd_utils.preflight.verdict import Verdict


def checked(*arguments: str) -> list[Verdict]:
    """Return what preflight finds of a job's start, with the child's answers from this process."""
    options, settings = read_options(["--data", "digits", "--recipe", "demo", *arguments], {})

    def ask(task, limit, what, ranks, job, classes):
        assert (task, job, ranks) == ("child", "weights", [0])
        try:
            return Answers(facts={0: child_tasks.TASKS[job](settings, {}, classes=classes)})
        except BadInput as error:
            return Answers(errors={0: str(error)})

    here = SimpleNamespace(options=options, settings=settings, rank=0)
    preflight = Preflight(SimpleNamespace(here=here, ask=ask, hosts={0: "node"}))
    preflight._classes = 10
    for name in ("weights", "trackers"):
        assert name in options.checks
        preflight._later()[name]()
    return preflight.verdicts


@pytest.fixture
def file(tmp_path):
    torch.save(some_model("resnet8", 10).state_dict(), tmp_path / "resnet8.pth")
    return tmp_path / "resnet8.pth"


def test_without_them_there_is_nothing_to_check():
    assert checked() == []


def test_weights_that_fit_are_told_as_the_job_tells_them(file):
    (found,) = checked("--model", "resnet8", "--init", str(file))
    assert (found.check, found.verdict) == ("weights", "ok")
    assert f"tensors from {file} (sha256:" in found.seen


@pytest.mark.parametrize(
    ("model", "damage", "said"),
    [
        ("resnet20", None, "is of another network than --model resnet20"),
        ("resnet8", b"no weights", "is damaged, or holds more than tensors"),
        ("resnet8", b"", "no weights"),
    ],
)
def test_weights_that_do_not_fit_or_cannot_be_read_fail(file, model, damage, said):
    if damage:
        file.write_bytes(damage)
    elif damage is not None:
        file.unlink()
    (found,) = checked("--model", model, "--init", str(file))
    assert (found.check, found.verdict) == ("weights", "fail")
    assert said in found.seen
    assert "it would fail in the same way" in found.remedy


def test_trackers_are_looked_at_as_the_job_does(monkeypatch):
    there = set()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in there or None)
    (found,) = checked("--track", "wandb")
    assert (found.check, found.verdict) == ("trackers", "fail")
    assert "--track wandb: wandb is not here: pip install wandb" in found.seen
    there.update(("wandb", "mlflow"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (found,) = checked("--track", "wandb,mlflow")
    assert "MLFLOW_TRACKING_URI is not set" in found.seen
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    (found,) = checked("--track", "wandb,mlflow")
    assert (found.verdict, found.seen) == ("ok", "wandb, mlflow can be used")
