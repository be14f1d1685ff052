"""A run's network names what is in a picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.checkpoints import some_model, write_checkpoint

from dali_pipeline.dataset.scan import scan_splits
from dali_pipeline.loading.torchvision_loader import validation_images
from dali_pipeline.sampling.plan import Plan
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.command_line import load_settings
from hvd_utils.config.recipe import Recipe
from hvd_utils.weights.pictures import class_names, pictures
from hvd_utils.weights.predict import main

SMALL = {"model": "resnet8", "resolution": 32, "val_resize": 40, "val_resolution": 36}


def test_pictures_are_those_of_validation(tiny_data):
    flags = ("--resolution", "32", "--val-resize", "40", "--batch-per-worker", "4", "--workers")
    settings = load_settings([*flags, "1", "--data", str(tiny_data)], {})
    train, val = scan_splits(tiny_data)
    plan = Plan(train, val, settings, [range(1)], 0, 1)
    validated = validation_images(plan, plan.validation_batch(np.arange(len(val))))
    files = [Path(val.path(image)) for image in range(len(val))]
    assert torch.equal(torch.cat(list(pictures(files, settings))), validated)


def test_the_likeliest_classes_are_named(tiny_data, tmp_path, capsys):
    model = some_model("resnet8", 3)
    write_checkpoint(tmp_path, model, ["ant", "bee", "cat"], **SMALL)
    file = next((tiny_data / "val/bee").iterdir())
    main([str(tmp_path), str(file), "--top", "2"])
    told = capsys.readouterr().out.splitlines()
    (picture,) = pictures([file], Recipe(**SMALL))
    with torch.inference_mode():
        shares = model(picture).softmax(dim=1)[0].tolist()
    best = sorted(zip(shares, ["ant", "bee", "cat"], strict=True), reverse=True)
    assert told == [str(file), *(f"{100 * share:8.2f} %  {name}" for share, name in best[:2])]


def test_imagenets_classes_have_names():
    wnids = [f"n{n:08d}" for n in range(1000)]
    assert class_names(wnids)[0] == "n00000000 tench"
    assert class_names(wnids[:10]) == wnids[:10]


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    write_checkpoint(tmp_path, some_model("resnet8", 2), ["a", "b"], **SMALL)
    (tmp_path / "text.jpg").write_text("no picture")
    for name, reason in (("text.jpg", "cannot identify"), ("none.jpg", "No such file")):
        with pytest.raises(BadInput, match=f"cannot read .*{name} .*{reason}.*give files"):
            main([str(tmp_path), str(tmp_path / name)])
