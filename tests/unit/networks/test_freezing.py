"""Frozen parts: their parameters do not train, and their batch norms do not follow the images."""

import pytest
import torch
from torch import nn

from hvd_utils.cli.errors import BadInput
from hvd_utils.networks.freezing import freeze, is_frozen, training_mode
from hvd_utils.networks.head import head_layers, head_names
from hvd_utils.nn.batch_norm import batch_norms
from hvd_utils.nn.models import build_model
from hvd_utils.training.running_statistics import RunningStatistics


def frozen(*patterns):
    model = build_model("resnet18", 5, zero_gamma=False, seed=1)
    freeze(model, patterns)
    return model, {name for name, p in model.named_parameters() if not p.requires_grad}


def test_patterns_name_parts_and_parameters():
    assert frozen()[1] == set()
    assert frozen("conv1", "bn1.bias")[1] == {"conv1.weight", "bn1.bias"}  # not layer1.0.conv1
    _, names = frozen("layer[12]")
    assert {name.split(".")[0] for name in names} == {"layer1", "layer2"}
    assert len(names) == 27
    _, names = frozen("*.bias")
    assert "fc.bias" in names
    assert all(name.endswith(".bias") for name in names)


def test_patterns_that_match_nothing_or_everything_are_refused():
    with pytest.raises(BadInput, match="--freeze layer9 matches nothing: .* conv1, bn1, .*fc"):
        frozen("conv1", "layer9")
    with pytest.raises(BadInput, match="leaves nothing to train"):
        frozen("*")


def test_frozen_batch_norms_neither_normalise_by_the_images_nor_follow_them():
    model, _ = frozen("conv1", "bn1", "layer1.0.bn1.bias")
    norms = [norm for norm in batch_norms(model) if is_frozen(norm)]
    assert norms == [model.bn1]  # not layer1.0.bn1, whose γ is trained
    before = model.bn1.running_mean.clone(), model.bn1.running_var.clone()
    statistics = RunningStatistics(model, 1, 1)
    training_mode(model)
    images = torch.randn(4, 3, 32, 32)
    seen = []
    model.bn1.register_forward_hook(lambda _, given, out: seen.append((given[0], out.clone())))
    model(images)
    statistics.end_pass(1)
    statistics.send(torch.zeros(2))
    statistics.receive()
    statistics.update(keep=torch.tensor(False))
    ((given, out),) = seen
    assert torch.allclose(out, given / (1 + model.bn1.eps) ** 0.5, atol=1e-6)
    assert torch.equal(model.bn1.running_mean, before[0])
    assert torch.equal(model.bn1.running_var, before[1])
    assert not torch.equal(model.layer1[0].bn1.running_mean, torch.zeros(64))


def test_the_head_is_the_last_layer():
    model = build_model("resnet18", 5, zero_gamma=False, seed=1)
    assert head_layers(model) == [model.fc]
    assert head_names(model) == {"fc.weight", "fc.bias"}
    convolutional = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1), nn.AdaptiveAvgPool2d(1))
    assert head_names(convolutional) == {"1.weight", "1.bias"}
