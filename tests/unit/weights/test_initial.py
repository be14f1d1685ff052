"""Weights in: what a file holds is matched by name and shape, and what does not fit is told."""

import argparse
import logging

import pytest
import timm
import torch
from safetensors.torch import save_file
from support.checkpoints import some_model, write_checkpoint

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.command_line import load_settings
from hvd_utils.inspect.final import read_result
from hvd_utils.nn.models import build_model
from hvd_utils.run.checkpoint import check_experiment
from hvd_utils.run.provenance import record
from hvd_utils.weights.initial import describe, match
from hvd_utils.weights.sources import digest, read_weights


@pytest.fixture(scope="module")
def resnet8():
    return some_model("resnet8", 4)


def weights(model):
    return {
        name: value.clone(memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
    }


def equal(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_a_run_and_a_checkpoint_give_the_averaged_weights(tmp_path, resnet8):
    averaged = some_model("resnet8", 4, seed=2)
    file = write_checkpoint(tmp_path, resnet8, "abcd", averaged=averaged, model="resnet8")
    for source in (tmp_path, file):
        assert equal(read_weights(str(source)), averaged.state_dict())


def wrapped(state):
    return {f"module.{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    "content",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "arch": "resnet8"},
        lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
        lambda state: {"model": {}, "model_ema": {"n_averaged": torch.tensor(3), **wrapped(state)}},
        lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_training_scripts_files_are_read(tmp_path, resnet8, content, zipped):
    file = tmp_path / "file.pth"
    state = weights(resnet8)
    torch.save(content(state), file, _use_new_zipfile_serialization=zipped)
    found = match(some_model("resnet8", 4, seed=2), read_weights(str(file)), "file", "resnet8")
    assert equal(found.loaded, state)
    assert found.new == []


def test_the_same_weights_have_the_same_digest_in_any_file(tmp_path, resnet8):
    state = weights(resnet8)
    torch.save(wrapped(state), tmp_path / "a.pt")
    save_file(state, tmp_path / "b.safetensors")
    digests = {digest(read_weights(str(tmp_path / name))) for name in ("a.pt", "b.safetensors")}
    assert len(digests) == 1
    state["fc.bias"] = state["fc.bias"] + 1e-7
    assert digest(state) not in digests


def test_timms_resnet_is_torchvisions(resnet8):
    """Published weights of either library start the other's network, name by name."""
    theirs = timm.create_model("resnet18", num_classes=10).state_dict()
    found = match(build_model("resnet18", 10, zero_gamma=True, seed=1), theirs, "x", "resnet18")
    assert (found.new, found.left_over) == ([], [])


def test_the_head_is_new_where_the_classes_are_others(resnet8):
    model = some_model("resnet8", 3, seed=2)
    found = match(model, weights(resnet8), "FILE", "resnet8")
    assert found.loaded.keys() == {n for n in model.state_dict() if not n.startswith("fc.")}
    line = "init: 54 tensors from FILE (sha256:ab); new: fc.weight (there 4×64, here 3×64), "
    assert describe(found, "FILE", "sha256:ab") == line + "fc.bias (there 4, here 3)"
    headless = {n: v for n, v in weights(resnet8).items() if not n.startswith("fc.")}
    headless["aux.weight"] = torch.zeros(1)
    line = describe(match(model, headless, "FILE", "resnet8"), "FILE", "sha256:ab")
    assert line.endswith(
        "new: fc.weight (not there), fc.bias (not there); left over there: aux.weight"
    )


def test_weights_of_another_network_are_refused(resnet8):
    words = "FILE is of another network than --model resnet20: 90 of .*set --model"
    with pytest.raises(BadInput, match=words):
        match(some_model("resnet20", 4), weights(resnet8), "FILE", "resnet20")
    state = weights(resnet8)
    state["stem.0.weight"] = torch.zeros(16, 1, 3, 3)
    with pytest.raises(BadInput, match=r"stem.0.weight \(there 16×1×3×3, here 16×3×3×3\)"):
        match(resnet8, state, "FILE", "resnet8")


def test_weights_that_are_not_finite_are_refused(resnet8):
    state = weights(resnet8)
    state["stem.1.running_var"][3] = float("inf")
    with pytest.raises(BadInput, match="not finite .stem.1.running_var."):
        match(resnet8, state, "FILE", "resnet8")


def test_old_files_have_no_counters(resnet8):
    state = {n: v for n, v in weights(resnet8).items() if not n.endswith("num_batches_tracked")}
    assert match(resnet8, state, "FILE", "resnet8").new == []


class Harmful:
    def __reduce__(self):
        return print, ("harm",)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.pth", b"no weights", "is damaged"),
        ("a.safetensors", b"no weights", "is damaged"),
        ("a.pth", Harmful(), "is damaged, or holds more than tensors"),
        ("a.pth", {"model": Harmful()}, "is damaged, or holds more than tensors"),
        ("a.pth", {"epoch": 3}, "holds no state dict"),
        ("a.pth", {}, "holds no state dict"),
        ("a.pth", [1, 2], "is damaged, or holds more"),
    ],
)
def test_files_that_hold_no_weights_are_refused(tmp_path, capsys, name, content, words):
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(BadInput, match=words):
        read_weights(str(file))
    assert capsys.readouterr().out == ""  # nothing pickled was run


def test_a_damaged_byte_is_noticed(tmp_path, resnet8):
    file = tmp_path / "a.pth"
    torch.save(weights(resnet8), file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(BadInput, match="is damaged"):
        read_weights(str(file))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("none.pth", "no weights none.pth.*timm/NAME"),
        ("timm/none", "no weights timm/none: timm.list_pretrained"),
        ("torchvision/none", "no weights torchvision/none: give"),
        ("torchvision/resnet50.V9", "no weights torchvision/resnet50.V9: give"),
        ("timm/resnet18.a1_in1k", "cannot get the weights timm/.*once where there is a network"),
        ("torchvision/resnet18", "cannot get the weights torchvision/.*once where there is"),
    ],
)
def test_names_without_weights_and_no_network_are_one_line(monkeypatch, tmp_path, source, words):
    def no_network(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    monkeypatch.setattr("timm.create_model", no_network)
    with pytest.raises(BadInput, match=words):
        read_weights(source)


def test_a_hubs_attempts_are_not_shown(monkeypatch):
    """Hugging Face's client warns of each; without a network there is one line, the error's."""

    def no_network(*_, **__):
        assert not logging.getLogger("huggingface_hub.utils._http").isEnabledFor(logging.WARNING)
        raise OSError("no route to host")

    monkeypatch.setattr("timm.create_model", no_network)
    with pytest.raises(BadInput, match="no route to host"):
        read_weights("timm/resnet18.a1_in1k")


def test_a_hubs_weights_are_taken_from_its_cache(monkeypatch, tmp_path):
    """torchvision's, from a file where torch.hub keeps what it has fetched."""
    from torchvision.models import ResNet18_Weights

    theirs = weights(build_model("resnet18", 1000, zero_gamma=False, seed=1))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    name = ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    torch.save(theirs, tmp_path / "hub/checkpoints" / name)
    assert equal(read_weights("torchvision/resnet18"), theirs)
    assert equal(read_weights("torchvision/resnet18.IMAGENET1K_V1"), theirs)


def test_timms_weights_are_taken_from_its_cache(monkeypatch, tmp_path):
    """In the folders in which Hugging Face's client keeps what it has fetched."""
    import huggingface_hub

    theirs = timm.create_model("test_resnet", num_classes=1000).state_dict()
    repository = tmp_path / "models--timm--test_resnet.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(theirs, repository / "snapshots" / ("0" * 40) / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert equal(read_weights("timm/test_resnet.r160_in1k"), theirs)


def test_the_digest_is_part_of_the_experiment_and_the_path_is_not(tmp_path):
    settings = load_settings(["--recipe", "demo", "--init", "here.pth"], {}).with_init("sha256:ab")
    moved = load_settings(["--recipe", "demo", "--init", "there.pth"], {})
    state = {"experiment": settings.with_workers(1).experiment()}
    check_experiment(state, tmp_path, moved.with_init("sha256:ab").with_workers(1).experiment())
    with pytest.raises(BadInput, match="--init was sha256:ab, now sha256:cd"):
        check_experiment(state, tmp_path, moved.with_init("sha256:cd").experiment())
    with pytest.raises(BadInput, match="--init was sha256:ab, now None"):
        check_experiment(state, tmp_path, load_settings(["--recipe", "demo"], {}).experiment())
    record(tmp_path, settings, {})
    (tmp_path / "metrics.jsonl").write_text("")
    assert read_result(tmp_path).experiment["init"] == "sha256:ab"
