"""The picture of a run."""

import json

import pytest
from PIL import Image

from hvd_utils.curves import draw
from hvd_utils.events import METRICS
from hvd_utils.failure import BadInput


def step(number):
    return {"event": "step", "step": number, "loss": 1.0, "train_top1_error": 50.0, "lr": 0.1}


def test_a_run_is_drawn_while_it_runs_and_when_it_has_ended(tmp_path):
    epoch = {"event": "epoch", "epoch": 0, "step": 2, "val_top1_error": 40.0}
    for events in ([step(1)], [step(1), step(2), epoch]):
        (tmp_path / METRICS).write_text("".join(json.dumps(event) + "\n" for event in events))
        draw(tmp_path, tmp_path / "curves.png")
        with Image.open(tmp_path / "curves.png") as picture:
            assert picture.width > picture.height > 100
            assert len(picture.convert("RGB").getcolors(10**6)) > 20


def test_a_run_without_steps_or_metrics_is_named(tmp_path):
    with pytest.raises(BadInput, match="cannot read"):
        draw(tmp_path, tmp_path / "curves.png")
    (tmp_path / METRICS).write_text('{"event": "start"}\n')
    with pytest.raises(BadInput, match="has logged no step"):
        draw(tmp_path, tmp_path / "curves.png")
