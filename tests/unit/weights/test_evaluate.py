"""What an evaluation says of a checkpoint before it gives a figure."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.checkpoints import some_model, write_checkpoint
from torch import nn

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.command_line import load_settings
from hvd_utils.run.checkpoint import require_finite
from hvd_utils.weights.evaluate import _otherwise_validated, read_evaluated
from hvd_utils.weights.hub import HUB
from hvd_utils.weights.sources import digest

FILE = Path("checkpoint.pt")


def warning(*arguments: str) -> str:
    """What is said of a checkpoint of the demo that is evaluated with these arguments."""
    state = {"experiment": load_settings(["--recipe", "demo"], {}).experiment()}
    settings = load_settings(["--recipe", "demo", *arguments], {})
    return " ".join(_otherwise_validated(state, FILE, settings))


def test_at_the_runs_own_sizes_nothing_is_said():
    assert warning() == ""
    assert warning("--val-resolution", "24", "--reference-rate", "1") == ""


def test_other_sizes_are_named_with_both_values():
    said = warning("--resolution", "32", "--val-resize", "64", "--no-antialias")
    assert "--val-resolution 32 instead of 24" in said
    assert "--val-resize 64 instead of 24" in said
    assert "--antialias False instead of True" in said
    assert "--recipe" in said


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
def test_weights_that_are_not_finite_give_no_figure(name, value):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    require_finite(model.state_dict(), FILE)
    with torch.no_grad():
        model.state_dict()[name].view(-1)[1] = value
    with pytest.raises(BadInput, match=rf"checkpoint.pt .* not finite \({name}\)"):
        require_finite(model.state_dict(), FILE)


def evaluated(source, classes=4):
    settings = load_settings(["--recipe", "demo", "--eval-only", str(source)], {})
    return read_evaluated(settings, some_model("resnet8", classes, seed=2), classes)


def test_a_runs_folder_stands_for_its_newest_checkpoint(tmp_path):
    averaged = some_model("resnet8", 4, seed=3)
    file = write_checkpoint(
        tmp_path, some_model("resnet8", 4), "abcd", averaged=averaged, model="resnet8"
    )
    for source in (tmp_path, file):
        path, what, weights = evaluated(source)
        assert (path, what) == (file, "step 7, averaged weights")
        assert torch.equal(weights["fc.weight"], averaged.state_dict()["fc.weight"])
    with pytest.raises(BadInput, match="no checkpoint in"):
        evaluated(tmp_path / "checkpoints")


@pytest.mark.parametrize("hub", [True, False])
def test_weights_of_others_are_evaluated_whole_or_not_at_all(tmp_path, monkeypatch, hub):
    """From a hub and from a file; without the counters that old files lack."""
    theirs = some_model("resnet8", 4, seed=3).state_dict()
    theirs = {n: v for n, v in theirs.items() if not n.endswith("num_batches_tracked")}
    source = "torchvision/resnet8" if hub else tmp_path / "theirs.pth"
    torch.save(theirs, tmp_path / "theirs.pth")
    monkeypatch.setitem(HUB, "torchvision", lambda name: theirs)
    path, what, weights = evaluated(source)
    assert (str(path), what) == (str(source), digest(theirs))
    some_model("resnet8", 4).load_state_dict(weights)
    assert all(torch.equal(weights[name], value) for name, value in theirs.items())
    with pytest.raises(BadInput, match=f"--eval-only {source} .*fc.weight .there 4×64, here 3×64"):
        evaluated(source, classes=3)
