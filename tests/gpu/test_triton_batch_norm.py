"""Batch norm by Triton's kernels: on a GPU, or elsewhere by Triton's interpreter.

``tests/unit/nn/test_triton.py`` runs these tests by the interpreter, with ``TRITON_INTERPRET=1``.
"""

from __future__ import annotations

import copy
import os

import pytest
import torch
from torch import nn
from torch.nn import functional

from hvd_utils.cli.errors import BadInput
from hvd_utils.nn.batch_norm import (
    WorkerBatchNorm2d,
    fused_batch_norm,
    normalise_by_worker,
    traceable_batch_norm,
)
from hvd_utils.nn.fused_blocks import use_fused_kernel
from hvd_utils.nn.kernel_choice import try_kernel
from hvd_utils.nn.memory_format import set_memory_format
from hvd_utils.nn.models import build_model
from hvd_utils.paper.logical_workers import passes
from hvd_utils.training.running_statistics import RunningStatistics

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no CUDA device here, nor Triton's interpreter", allow_module_level=True)

from hvd_utils.nn import triton_batch_norm  # noqa: E402

# workers, images of each, channels, height, width
SHAPES = [
    (1, 4, 3, 5, 4),
    (3, 2, 5, 1, 7),  # one row
    (2, 1, 70, 3, 3),  # one image, and more channels than a block
    (5, 3, 33, 1, 1),  # one pixel
    (2, 3, 64, 3, 3),
]
SIDE = 8 if INTERPRETED else 64  # of a network's images
FORMS = {"plain": (False, False), "relu": (False, True), "sum and relu": (True, True)}
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


@pytest.fixture
def parts(monkeypatch):
    """Have the pixels of even a small image shared out to several programs, each in steps.

    And their sums are added in steps, two parts in each.
    """
    monkeypatch.setattr(triton_batch_norm, "BLOCK", 256)
    monkeypatch.setattr(triton_batch_norm, "PROGRAMS", 3)
    monkeypatch.setattr(triton_batch_norm, "PARTS_COLUMNS", 128)


def made(shape, dtype=torch.float64, summed=False, mean=1.0):
    """Return images, γ, β and, if one is added, a shortcut, with numbers that ``dtype`` has."""
    torch.manual_seed(0)
    workers, batch, channels, *size = shape
    images = torch.randn(workers * batch, channels, *size) * 2 + mean
    given = [images, torch.randn(channels), torch.randn(channels)]
    given += [torch.randn_like(images)] * summed
    kinds = (dtype, torch.float64, torch.float64, dtype)
    return [one.to(DEVICE, kind) for one, kind in zip(given, kinds, strict=False)]


def there_and_back(function, given, dtype, workers, relu):
    """Return output, mean, variance and the gradients of all that is given, in float64."""
    kinds = [dtype, *[torch.float64 if dtype == torch.float64 else torch.float32] * 2, dtype]
    leaves = [one.to(kind).requires_grad_() for one, kind in zip(given, kinds, strict=False)]
    images, weight, bias, *shortcut = leaves
    output, mean, var = function(images, workers, weight, bias, 1e-5, *(shortcut or [None]), relu)
    target = torch.randn(images.shape, generator=torch.Generator().manual_seed(1)).to(images)
    gradients = torch.autograd.grad(output, leaves, target)
    return [one.detach().double() for one in (output, mean, var, *gradients)]


def by_pytorch(images, workers, weight, bias, eps, shortcut, relu):
    """Compute each worker by ``nn.BatchNorm2d``, one after the other."""
    outputs, means, variances = [], [], []
    for worker in range(workers):
        norm = nn.BatchNorm2d(images.shape[1], eps, momentum=1.0).to(images)
        named = {"weight": weight, "bias": bias}
        outputs.append(torch.func.functional_call(norm, named, images[worker::workers]))
        means.append(norm.running_mean)
        variances.append(norm.running_var)
    output = torch.stack(outputs, dim=1).flatten(0, 1)
    output = output if shortcut is None else output + shortcut
    return output.relu() if relu else output, torch.stack(means), torch.stack(variances)


def by_operations(form):
    def compute(images, workers, weight, bias, eps, shortcut, relu):
        output, mean, var = form(images, workers, weight, bias, eps)
        output = output if shortcut is None else output + shortcut
        return output.relu() if relu else output, mean, var

    return compute


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_it_computes_what_pytorch_does_worker_by_worker(shape, form, parts):
    """Output, statistics and every gradient, in float64."""
    summed, relu = FORMS[form]
    given = made(shape, summed=summed)
    ours, *others = (
        there_and_back(way, given, torch.float64, shape[0], relu)
        for way in (
            triton_batch_norm.batch_norm,
            by_pytorch,
            by_operations(traceable_batch_norm),
            by_operations(fused_batch_norm),
        )
    )
    for theirs in others:
        for our, their in zip(ours, theirs, strict=True):
            assert torch.allclose(our, their, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_in_fewer_bits_it_is_off_by_what_they_round(dtype, form):
    """Statistics are off by what float32 rounds, whatever the images are in."""
    summed, relu = FORMS[form]
    for shape in SHAPES[1:4]:
        given = made(shape, dtype, summed)
        ours = there_and_back(triton_batch_norm.batch_norm, given, dtype, shape[0], relu)
        exact = there_and_back(by_pytorch, given, torch.float64, shape[0], relu)
        bounds = [ROUNDING[dtype], 1e-5, 1e-5, *[ROUNDING[dtype]] * 4]
        for our, their, bound in zip(ours, exact, bounds, strict=False):
            assert (our - their).abs().max() <= bound * their.abs().max()


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_the_derivatives(form):
    summed, relu = FORMS[form]
    given = [one.requires_grad_() for one in made((2, 2, 3, 2, 1), summed=summed)]

    def output(images, weight, bias, shortcut=None):
        return triton_batch_norm.batch_norm(images, 2, weight, bias, 1e-5, shortcut, relu)[0]

    assert torch.autograd.gradcheck(output, given, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_worker_is_computed_alike_to_the_bit_whoever_else_is_in_the_pass(dtype, parts):
    images, weight, bias, shortcut = made((8, 2, 33, 3, 3), dtype, summed=True)
    weight, bias = weight.float(), bias.float()
    gradient = torch.randn(images.shape, generator=torch.Generator().manual_seed(1)).to(images)

    def computed(places, workers):
        x, s = (one[places].clone().requires_grad_() for one in (images, shortcut))
        output, *statistics = triton_batch_norm.batch_norm(x, workers, weight, bias, 1e-5, s, True)
        return output, torch.autograd.grad(output, (x, s), gradient[places]), statistics

    everyone = slice(None)
    fused, gradients, statistics = computed(everyone, 8)
    again, gradients_again, _ = computed(everyone, 8)
    assert torch.equal(fused, again)
    assert all(map(torch.equal, gradients, gradients_again))
    for worker in range(8):
        mine = slice(worker, None, 8)
        output, alone, own = computed(mine, 1)
        assert torch.equal(output, fused[mine])
        for our, their in zip(alone, gradients, strict=True):
            assert torch.equal(our, their[mine])
        for our, their in zip(own, statistics, strict=True):
            assert torch.equal(our[0], their[worker])


def test_a_large_mean_cancels_nothing(parts):
    """The mean of squares less the square of the mean would be off by 10 here."""
    images, weight, bias = made((2, 4, 3, 9, 9), mean=1e4)
    _, mean, var = triton_batch_norm.batch_norm(
        images.float(), 2, weight.float(), bias.float(), 1e-5
    )
    split = images.float().double().unflatten(0, (4, 2)).transpose(0, 1).transpose(1, 2).flatten(2)
    assert torch.allclose(mean.double(), split.mean(dim=2), rtol=1e-6)
    assert torch.allclose(var.double(), split.var(dim=2), rtol=1e-3)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_images_and_gradients_may_lie_in_any_way_and_come_out_channels_last(layout):
    images, weight, bias = made((2, 3, 5, 4, 3))
    expected = triton_batch_norm.batch_norm(images, 2, weight, bias, 1e-5)[0]
    images = images.contiguous(memory_format=layout).requires_grad_()
    output = triton_batch_norm.batch_norm(images, 2, weight, bias, 1e-5)[0]
    assert torch.equal(output, expected)
    assert output.is_contiguous(memory_format=torch.channels_last)
    target = torch.randn(images.shape, generator=torch.Generator().manual_seed(1)).to(images)
    gradients = [
        torch.autograd.grad(output, images, one, retain_graph=True)[0]
        for one in (target, target.contiguous(memory_format=torch.channels_last))
    ]
    assert torch.equal(*gradients)
    (spread,) = torch.autograd.grad(output.mean(), images)  # one number, seen everywhere
    assert spread.abs().max() < 1e-15


def test_what_is_not_a_number_passes_relu():
    images, weight, bias, shortcut = made((1, 2, 3, 4, 4), torch.float32, summed=True)
    shortcut[0, 0, 0, 0] = torch.nan
    output = triton_batch_norm.batch_norm(images, 1, weight.float(), bias, 1e-5, shortcut, True)[0]
    assert output.isnan().sum() == 1


def test_one_pixel_has_no_variance():
    images, weight, bias = made((4, 1, 3, 1, 1))
    with pytest.raises(ValueError, match=r"one pixel a worker: \(4, 3, 1, 1\)"):
        triton_batch_norm.batch_norm(images, 4, weight, bias, 1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_pytorch_finds_the_operators_sound(form):
    """Their schema, what a compiler is told of their results, and autograd."""
    summed, relu = FORMS[form]
    images, weight, bias, *shortcut = made((2, 2, 3, 2, 2), summed=summed)
    shortcut = (shortcut or [None])[0]
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        given = (images, shortcut, weight, bias, 2, 1e-5, relu)
        output, statistics = triton_batch_norm.forward(*given)
    output = output if summed else None
    back = (torch.randn_like(images), images, output, weight, bias, statistics, relu)
    torch.library.opcheck(triton_batch_norm.backward, back)
    for one in (images, weight, bias, *([shortcut] if summed else [])):
        one.requires_grad_()
    torch.library.opcheck(triton_batch_norm.forward, given)


def network(name, fused, dtype=torch.float64):
    model = build_model(name, 5, zero_gamma=False, seed=1).to(DEVICE, dtype)
    normalise_by_worker(model, [range(2)], 3)
    set_memory_format(model, channels_last=True)
    if fused:
        use_fused_kernel(model, triton_batch_norm.batch_norm)
    return model


def pass_of(model, dtype=torch.float64):
    """Return logits, running averages and gradients of a pass of two workers."""
    torch.manual_seed(0)
    images = torch.randn(6, 3, SIDE, SIDE).to(DEVICE, dtype)
    logits = model(images)
    functional.cross_entropy(logits, torch.arange(6, device=DEVICE) % 5).backward()
    averages = [buffer for name, buffer in model.named_buffers() if ".running_" in name]
    return [logits, *averages, *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize("name", ["resnet8", *([] if INTERPRETED else ["resnet50"])])
def test_a_network_computes_the_same(name):
    for ours, theirs in zip(*(pass_of(network(name, f)) for f in (True, False)), strict=True):
        assert (ours - theirs).norm() < 1e-9 * theirs.norm()


def test_a_network_in_16_bits_is_as_far_from_the_exact_one():
    exact = pass_of(network("resnet8", False))[0]
    off = []
    for fused in (True, False):
        with torch.autocast(DEVICE.type, torch.bfloat16):
            logits = pass_of(network("resnet8", fused, torch.float32), torch.float32)[0]
        off.append((logits - exact).norm().item())
    assert off[0] < 2 * off[1]


@pytest.mark.parametrize(
    "how", [{"backend": "aot_eager"}, *([] if INTERPRETED else [{}, {"mode": "reduce-overhead"}])],
    ids=str,
)  # fmt: skip
def test_a_compiler_takes_a_network_whole(how):
    """And CUDA graphs do; each pass once more, when they are replayed."""
    plain, compiled = network("resnet8", False), network("resnet8", True)
    compiled.compile(fullgraph=True, dynamic=False, **how)
    for _ in range(1 if INTERPRETED else 4):
        for model in (plain, compiled):
            model.zero_grad()
        for ours, theirs in zip(pass_of(compiled), pass_of(plain), strict=True):
            assert (ours - theirs).norm() < 1e-9 * theirs.norm()


def test_running_averages_are_updated_alike_by_passes_of_any_number_of_workers():
    """The last pass is smaller."""
    plain = WorkerBatchNorm2d.like(nn.BatchNorm2d(3).double(), batch_per_worker=6).to(DEVICE)
    fused = copy.deepcopy(plain)
    fused.fused_kernel = triton_batch_norm.batch_norm
    for norm in (plain, fused):
        torch.manual_seed(0)
        averages = RunningStatistics(nn.Sequential(norm), 7, size=1)
        for _ in range(2):
            for part in passes(range(7), 3):
                norm(torch.randn(len(part) * 6, 3, 4, 4).double().to(DEVICE) * 2 + 1)
                averages.end_pass(len(part))
            averages.send(torch.zeros(2, device=DEVICE))
            averages.receive()
            averages.update(keep=torch.tensor(False, device=DEVICE))
    assert torch.allclose(fused.running_mean, plain.running_mean, rtol=1e-12)
    assert torch.allclose(fused.running_var, plain.running_var, rtol=1e-12)


def test_the_kernel_is_tried_before_it_is_used():
    try_kernel(triton_batch_norm.batch_norm, DEVICE)

    def without_sum(*given):
        return triton_batch_norm.batch_norm(*given[:5], given[5] * 0, given[6])

    with pytest.raises(BadInput, match="computes wrongly here"):
        try_kernel(without_sum, DEVICE)
