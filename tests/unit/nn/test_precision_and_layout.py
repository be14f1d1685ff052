"""Layout in memory, precision and compilation leave the mathematics alone."""

import horovod.torch as hvd
import pytest
import torch
from torch import nn
from torch.nn import functional

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import SpeedSettings
from hvd_utils.horovod_backend.compression import ContiguousViews
from hvd_utils.nn.batch_norm import normalise_by_worker
from hvd_utils.nn.compile import stages, tune_model
from hvd_utils.nn.memory_format import (
    PaddedConv2d,
    contiguous_view,
    default_channels_last,
    pad_stem,
    set_memory_format,
)
from hvd_utils.nn.models import build_model
from hvd_utils.nn.precision import computing, parameter_dtype, set_matmul_precision

CPU = torch.device("cpu")


def gradients(model, precision="fp64"):
    torch.manual_seed(0)
    images, labels = torch.randn(8, 3, 16, 16), torch.arange(8) % 5
    with computing(precision, CPU):
        loss = functional.cross_entropy(model(images.to(parameter_dtype(precision))), labels)
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def network(precision="fp64", channels_last=False):
    model = build_model("resnet8", 5, zero_gamma=False, seed=1).to(parameter_dtype(precision))
    normalise_by_worker(model, [range(2)], 4)
    set_memory_format(model, channels_last=channels_last)
    return model


def test_channels_last_computes_the_same():
    ours, theirs = gradients(network(channels_last=True)), gradients(network())
    assert not ours["stages.0.conv1.weight"].is_contiguous()
    assert theirs["stages.0.conv1.weight"].is_contiguous()
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, rtol=1e-10, atol=1e-12), name


def test_a_stem_of_four_channels_computes_the_same(monkeypatch):
    """Of the same parameters, which a checkpoint holds."""
    for name in ("benchmark", "deterministic"):  # as they were, afterwards
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    padded = network()
    tune_model(padded, SpeedSettings(channels_last=True, pad_stem=True), CPU)
    assert type(padded.stem[0]) is PaddedConv2d
    assert type(padded.stages[0].conv1) is nn.Conv2d
    seen = []
    padded.stem[0].register_forward_hook(lambda *given: seen.append(given[2]))
    ours, theirs = gradients(padded), gradients(network())
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, rtol=1e-10, atol=1e-12), name


@pytest.mark.parametrize(
    ("options", "padded"),
    [
        ({"dilation": 2, "stride": 2, "padding": 1, "bias": False}, True),
        ({"padding": 1, "padding_mode": "reflect"}, False),
        ({"groups": 3}, False),
    ],
)
def test_a_stem_of_four_channels_is_any_that_it_computes_alike(options, padded):
    torch.manual_seed(1)
    stem, images = nn.Sequential(nn.Conv2d(3, 6, 3, **options)), torch.randn(2, 3, 9, 9)
    expected = stem(images)
    pad_stem(stem)
    assert (type(stem[0]) is PaddedConv2d) == padded
    torch.testing.assert_close(stem(images), expected)


@pytest.mark.parametrize("shape", [(4, 3, 2, 2), (4, 3, 1, 1), (4, 3), (5,)])
def test_horovod_is_handed_the_gradient_itself_whatever_its_layout(shape):
    gradient = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    if len(shape) == 4:
        gradient = gradient.contiguous(memory_format=torch.channels_last)
    compressor = ContiguousViews(hvd.Compression.none)
    sent, context = compressor.compress(gradient)
    assert sent.is_contiguous()
    sent *= 2  # in place, as Horovod sums
    assert sent.data_ptr() == gradient.data_ptr()
    received = compressor.decompress(sent, context)
    assert torch.equal(received, gradient)
    assert received.stride() == gradient.stride()


def test_sixteen_bits_are_for_products_alone():
    """Parameters, their gradients and the loss stay in float32."""
    for precision in ("bf16", "fp16"):
        model, seen = network(precision), []
        model.stages.register_forward_hook(lambda *a, seen=seen: seen.append(a[2].dtype))
        reference = gradients(network("fp32"), "fp32")
        for name, gradient in gradients(model, precision).items():
            assert gradient.dtype == torch.float32
            far = (gradient - reference[name]).abs().max() / reference[name].abs().max()
            assert 0 < far < 0.3, (name, far)
        assert seen == [{"bf16": torch.bfloat16, "fp16": torch.float16}[precision]]


def test_products_of_float32_are_not_rounded_behind_ones_back():
    """PyTorch's convolutions would be in TF32."""
    set_matmul_precision("fp32", CPU)
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"
    with pytest.raises(BadInput, match="tf32 is arithmetic of NVIDIA's GPUs: set fp32"):
        set_matmul_precision("tf32", CPU)


def test_tensor_cores_and_cpus_take_channels_last():
    gpu = torch.device("cuda")
    assert default_channels_last("bf16", gpu)
    assert not default_channels_last("fp32", gpu)
    assert default_channels_last("fp32", CPU)


@pytest.mark.parametrize(("name", "count"), [("resnet50", 4), ("resnet8", 1)])
def test_the_stages_are_found(name, count):
    model = build_model(name, 5, zero_gamma=True, seed=1)
    found = stages(model)
    assert len(found) == count
    assert all(isinstance(stage, nn.Sequential) for stage in found)


def test_views_are_of_what_is_contiguous_or_channels_last_alone():
    images = torch.zeros(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert contiguous_view(images).is_contiguous()


@pytest.mark.parametrize("tries", [True, False])
def test_cudnn_tries_its_algorithms_or_repeats_to_the_bit(tries, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", not tries)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", tries)
    settings = SpeedSettings(cudnn_benchmark=tries, channels_last=False)
    tune_model(build_model("resnet8", 5, zero_gamma=False, seed=1), settings, CPU)
    assert torch.backends.cudnn.benchmark is tries
    assert torch.backends.cudnn.deterministic is not tries
