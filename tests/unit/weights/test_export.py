"""Weights out: what other libraries read is the network of the run, with all that belongs to it."""

import json

import onnxruntime
import pytest
import torch
import torchvision
from safetensors import safe_open
from support.checkpoints import some_model, write_checkpoint
from torchvision.models.detection import maskrcnn_resnet50_fpn

from hvd_utils.cli.errors import BadInput
from hvd_utils.weights.export import main
from hvd_utils.weights.trained import read_trained

CLASSES = [f"class {n}" for n in range(1000)]
SMALL = {"model": "resnet8", "resolution": 32, "val_resize": 40, "val_resolution": 36}


@pytest.fixture(scope="module")
def resnet50():
    return some_model("resnet50", 1000)


@pytest.fixture(scope="module")
def exported(resnet50, tmp_path_factory):
    """The state dict of torchvision's format, from a run's folder."""
    run = tmp_path_factory.mktemp("run")
    write_checkpoint(run, resnet50, CLASSES, model="resnet50")
    main([str(run), "--to", "torchvision"])
    return run / "resnet50.pth"


def test_torchvisions_network_takes_the_weights(resnet50, exported):
    theirs = torchvision.models.resnet50().eval()
    theirs.load_state_dict(torch.load(exported, weights_only=True), strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(
            theirs(images), resnet50.to(memory_format=torch.contiguous_format)(images)
        )
    facts = json.loads(exported.with_suffix(".json").read_text())
    assert facts["classes"] == CLASSES
    assert facts["crop_side"] == 224
    nowhere = exported.parent / "none/x.pth"
    with pytest.raises(BadInput, match="cannot write .*none/x.pth: No such file"):
        main([str(exported.parent), "--to", "torchvision", "--output", str(nowhere)])


def test_mask_rcnn_takes_them_as_its_backbone(exported):
    """Section 5.5: nothing is missing, and only the classifier is left over."""
    body = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).backbone.body
    told = body.load_state_dict(torch.load(exported, weights_only=True), strict=False)
    assert told.missing_keys == []
    assert {name.split(".")[-1] for name in told.unexpected_keys} <= {
        *("weight", "bias", "num_batches_tracked")
    }
    kept = {name.rpartition(".")[0] for name in told.unexpected_keys if "num_batches" not in name}
    assert kept == {"fc"}


def test_safetensors_hold_the_averaged_weights_and_what_belongs_to_them(tmp_path, capsys):
    model, averaged = (some_model("resnet8", 3, seed=seed) for seed in (1, 2))
    file = write_checkpoint(
        tmp_path, model, ["ant", "bee", "cat"], averaged=averaged, average="ema", **SMALL
    )
    out = tmp_path / "out.safetensors"
    main([str(file), "--to", "safetensors", "--output", str(out)])
    told = capsys.readouterr().out
    assert told == f"{out}: averaged weights of {file}, step 7, top-1 error 25.00 %\n"
    with safe_open(out, "pt") as read:
        weights = {name: read.get_tensor(name) for name in read.keys()}  # noqa: SIM118
        facts = read.metadata()
    assert weights.keys() == averaged.state_dict().keys()
    assert all(torch.equal(weights[name], v) for name, v in averaged.state_dict().items())
    assert facts["model"] == "resnet8"
    assert json.loads(facts["classes"]) == ["ant", "bee", "cat"]
    assert json.loads(facts["mean"]) == [0.485, 0.456, 0.406]
    assert json.loads(facts["std"]) == [0.229, 0.224, 0.225]
    assert json.loads(facts["recipe"])["average"] == "ema"
    assert (json.loads(facts["crop_side"]), json.loads(facts["resize_shorter_side"])) == (36, 40)
    assert json.loads(facts["top1_error"]) == 25.0
    assert "commit" in json.loads(facts["exported_by"])


@pytest.mark.parametrize("name", ["resnet8", "timm/test_byobnet"])
def test_onnx_computes_the_same_logits_for_any_number_of_images(tmp_path, name):
    model = some_model(name, 3)
    write_checkpoint(tmp_path, model, ["ant", "bee", "cat"], **SMALL | {"model": name})
    main([str(tmp_path), "--to", "onnx", "--output", str(tmp_path / "model.onnx")])
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == [
        *("ant", "bee", "cat")
    ]
    for count in (1, 5):
        images = torch.randn(count, 3, 36, 36)
        (theirs,) = session.run(["logits"], {"images": images.numpy()})
        with torch.inference_mode():
            assert torch.allclose(torch.from_numpy(theirs), model(images), atol=1e-4)


def test_the_code_that_trained_is_told(tmp_path):
    write_checkpoint(tmp_path, some_model("resnet8", 2), ["a", "b"], **SMALL)
    assert read_trained(tmp_path).facts()["trained_by"] is None
    facts = {"git": {"commit": "abc"}, "packages": {"torch": "2"}, "hosts": {"node1": 8}}
    (tmp_path / "environment.json").write_text(json.dumps(facts))
    assert read_trained(tmp_path).facts()["trained_by"] == {
        **{"git": {"commit": "abc"}, "packages": {"torch": "2"}},
        "python": None,
    }


def test_classes_without_names_are_numbers(tmp_path):
    """Of checkpoints made before they were kept."""
    file = write_checkpoint(tmp_path, some_model("resnet8", 2), ["a", "b"], **SMALL)
    state = torch.load(file, weights_only=True)
    del state["classes"]
    torch.save(state, file)
    assert read_trained(file).classes == ("0", "1")


def test_weights_in_doubles_leave_in_float32(tmp_path):
    write_checkpoint(tmp_path, some_model("resnet8", 2).double(), ["a", "b"], **SMALL)
    types = {v.dtype for v in read_trained(tmp_path).weights.values()}
    assert types == {torch.float32, torch.int64}


def damaged(file):
    file.write_bytes(file.read_bytes()[:-500])


def not_finite(file):
    state = torch.load(file, weights_only=True)
    state["model"]["fc.bias"][0] = float("nan")
    torch.save(state, file)


def of_another_model(file):
    state = torch.load(file, weights_only=True)
    state["experiment"]["model"] = "resnet20"
    torch.save(state, file)


@pytest.mark.parametrize(
    ("harm", "to", "words"),
    [
        (damaged, "onnx", "is damaged or no checkpoint"),
        (not_finite, "safetensors", "not finite .fc.bias."),
        (of_another_model, "onnx", "does not hold what this model"),
        (lambda file: file.unlink(), "onnx", "no checkpoint in"),
        (lambda file: None, "torchvision", "resnet8 is no network of torchvision.*safetensors"),
    ],
)
def test_what_cannot_be_exported_is_refused(tmp_path, harm, to, words):
    harm(write_checkpoint(tmp_path, some_model("resnet8", 2), ["a", "b"], **SMALL))
    with pytest.raises(BadInput, match=words):
        main([str(tmp_path), "--to", to])
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    file = write_checkpoint(tmp_path, some_model("resnet8", 2), ["a", "b"], **SMALL)
    with pytest.raises(BadInput, match="cannot write .*none/x.onnx: No such file"):
        main([str(file), "--to", "safetensors", "--output", str(tmp_path / "none/x.onnx")])
    with pytest.raises(BadInput, match="is the checkpoint itself"):
        main([str(file), "--to", "safetensors", "--output", str(file)])
    with pytest.raises(BadInput, match="is where classes and recipe go"):
        main([str(file), "--to", "torchvision", "--output", str(tmp_path / "x.json")])


def test_without_onnx_the_remedy_is_told(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, some_model("resnet8", 2), ["a", "b"], **SMALL)
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(BadInput, match="--to onnx needs .*pip install onnx onnxscript"):
        main([str(tmp_path), "--to", "onnx"])
