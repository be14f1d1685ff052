"""The networks and the paper's initialisation (section 5.1)."""

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from hvd_utils.cli.errors import BadInput
from hvd_utils.nn.models import build_model


def build(name, classes=10, zero_gamma=True, seed=1):
    return build_model(name, classes, zero_gamma=zero_gamma, seed=seed)


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "resnet18", "resnet50"])
def test_gamma_is_zero_in_the_last_batch_norm_of_each_block_and_one_elsewhere(name):
    model = build(name)
    last = [m.bn3 for m in model.modules() if isinstance(m, Bottleneck)]
    last += [m.bn2 for m in model.modules() if isinstance(m, BasicBlock)]
    assert last
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        expected = 0.0 if any(norm is one for one in last) else 1.0
        assert (norm.weight == expected).all()
        assert (norm.bias == 0).all()


def test_the_control_starts_every_gamma_at_one():
    model = build("resnet8", zero_gamma=False)
    assert all((m.weight == 1).all() for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_the_last_layer_is_drawn_with_deviation_0_01():
    layer = build("resnet50", classes=1000).fc
    assert layer.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert abs(layer.weight.mean().item()) < 1e-4
    assert (layer.bias == 0).all()


def test_convolutions_are_drawn_as_he_does():
    for module in build("resnet50").modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)


def test_resnet50_is_the_papers():
    """25.5 million parameters, and the stride-2 convolution is the 3×3 one."""
    model = build("resnet50", classes=1000)
    assert sum(p.numel() for p in model.parameters()) == 25_557_032
    first = model.layer2[0]
    assert (first.conv1.stride, first.conv2.stride) == ((1, 1), (2, 2))
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_resnet20_has_the_size_published_for_it():
    assert round(sum(p.numel() for p in build("resnet20").parameters()) / 1e6, 2) == 0.27


def test_the_seed_decides_the_weights():
    def weights(seed):
        return torch.cat([p.flatten() for p in build("resnet8", seed=seed).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_an_unknown_model_is_refused_with_the_known_ones():
    with pytest.raises(BadInput, match="no model resnet9.*resnet8.*resnet50"):
        build("resnet9")
