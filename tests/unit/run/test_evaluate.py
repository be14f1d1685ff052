"""What an evaluation says of a checkpoint before it gives a figure."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.command_line import load_settings
from hvd_utils.run.checkpoint import require_finite
from hvd_utils.run.evaluate import _otherwise_validated

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
