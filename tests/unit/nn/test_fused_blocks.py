"""Networks whose batch norms take ReLU and the shortcut's sum, by whichever kernel."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import SpeedSettings
from hvd_utils.nn import compile, kernel_choice
from hvd_utils.nn.batch_norm import WorkerBatchNorm2d, normalise_by_worker, traceable_batch_norm
from hvd_utils.nn.fused_blocks import FUSED, use_fused_kernel
from hvd_utils.nn.kernel_choice import choose_batch_norm
from hvd_utils.nn.models import build_model

GPU = torch.device("cuda", 0)


class Spelled:
    """A kernel in plain operations that counts how often it was called, and with what to do."""

    def __init__(self):
        self.relus = self.sums = self.calls = 0

    def __call__(self, images, workers, weight, bias, eps, shortcut=None, relu=False):
        self.calls += 1
        self.relus += relu
        self.sums += shortcut is not None
        output, mean, var = traceable_batch_norm(images, workers, weight, bias, eps)
        output = output if shortcut is None else output + shortcut
        return functional.relu(output) if relu else output, mean, var


def network(name):
    model = build_model(name, 5, zero_gamma=False, seed=1).double()
    normalise_by_worker(model, [range(2)], 3)
    return model


def pass_of(model):
    torch.manual_seed(0)
    logits = model(torch.randn(6, 3, 32, 32).double())
    functional.cross_entropy(logits, torch.arange(6) % 5).backward()
    averages = [buffer for name, buffer in model.named_buffers() if ".running_" in name]
    return [logits, *averages, *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize(
    ("name", "norms", "relus", "sums"), [("resnet8", 9, 7, 3), ("resnet18", 20, 17, 8),
                                        ("resnext50_32x4d", 53, 49, 16)],
)  # fmt: skip
def test_a_fused_network_computes_what_torchvisions_does(name, norms, relus, sums):
    plain, fused, kernel = network(name), network(name), Spelled()
    use_fused_kernel(fused, kernel)
    for ours, theirs in zip(pass_of(fused), pass_of(plain), strict=True):
        assert (ours - theirs).norm() < 1e-7 * theirs.norm()
    assert (kernel.calls, kernel.relus, kernel.sums) == (norms, relus, sums)
    images = torch.randn(2, 3, 32, 32).double()
    with torch.no_grad():
        assert torch.allclose(fused.eval()(images), plain.eval()(images), rtol=1e-5)
    assert kernel.calls == norms  # validation takes PyTorch's


@pytest.mark.parametrize(
    ("fewest", "compiled", "calls"), [(2, False, 9), (3, False, 0), (3, True, 9)]
)
def test_few_workers_take_the_kernel_only_where_the_model_is_compiled(
    monkeypatch, fewest, compiled, calls
):
    """And compute the same without it, the shortcut's sum and ReLU too."""
    plain, fused, kernel = network("resnet8"), network("resnet8"), Spelled()
    use_fused_kernel(fused, kernel, fewest)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiled)
    for ours, theirs in zip(pass_of(fused), pass_of(plain), strict=True):
        assert (ours - theirs).norm() < 1e-7 * theirs.norm()
    assert kernel.calls == calls


def test_checkpoints_are_torchvisions_strictly():
    """Those written before too, and a fused network's load there."""
    theirs = torchvision.models.resnet18(num_classes=5)
    ours = build_model("resnet18", 5, zero_gamma=False, seed=2)
    normalise_by_worker(ours, [range(1)], 3)
    use_fused_kernel(ours, Spelled())
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    assert list(theirs.state_dict()) == list(ours.state_dict())


def test_passes_are_not_counted():
    """It would be a launch a norm on a GPU; a checkpoint says the step there."""
    norm = WorkerBatchNorm2d.like(nn.BatchNorm2d(3), batch_per_worker=4)
    for workers in (1, 2):
        norm(torch.randn(4 * workers, 3, 2, 2))
    assert norm.num_batches_tracked == 0


def test_one_worker_is_normalised_by_pytorchs_kernel_to_the_bit():
    plain = nn.BatchNorm2d(3)
    ours = WorkerBatchNorm2d.like(copy.deepcopy(plain), batch_per_worker=4)
    images = torch.randn(4, 3, 2, 2)
    assert torch.equal(ours(images), plain(images))
    assert torch.equal(ours.running_mean, plain.running_mean)
    assert torch.equal(ours.running_var, plain.running_var)


def test_what_cannot_be_fused_is_left_as_it_is():
    """Other activations than ReLU, and norms of another kind."""
    silu = network("resnet8")
    for block in silu.stages:
        block.relu = nn.SiLU()
    silu.stem[2] = nn.SiLU()
    before = pass_of(copy.deepcopy(silu))
    use_fused_kernel(silu, Spelled())
    for ours, theirs in zip(pass_of(silu), before, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-10)
    unnormalised = build_model("resnet18", 5, zero_gamma=False, seed=1)
    use_fused_kernel(unnormalised, Spelled())
    assert not {type(module) for module in unnormalised.modules()} & set(FUSED.values())


@pytest.fixture
def pretended(monkeypatch):
    """An H100 where everything is, and a kernel that computes."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(kernel_choice, "try_kernel", lambda kernel, device: None)
    monkeypatch.setattr(kernel_choice.shutil, "which", lambda name: name)
    return monkeypatch


@pytest.mark.parametrize(
    ("choice", "device", "channels_last", "fewest"),
    [
        ("auto", "cuda", True, 2),
        ("triton", "cuda", True, 1),
        ("torch", "cuda", True, None),
        ("auto", "cuda", False, None),
        ("auto", "cpu", True, None),
    ],
)
def test_tritons_kernel_is_for_gpus_and_channels_last(
    pretended, choice, device, channels_last, fewest
):
    """``auto`` takes it for passes of several workers."""
    model = network("resnet8")
    choose_batch_norm(model, choice, torch.device(device), channels_last=channels_last)
    norm = model.stem[1]
    assert (norm.fewest_workers if norm.fused_kernel else None) == fewest
    assert (type(model) in FUSED.values()) == (fewest is not None)


@pytest.mark.parametrize(
    ("name", "value", "needs"),
    [
        ("device", "cpu", "a GPU: set --device cuda"),
        ("capability", (7, 5), "compute capability 8"),
        ("channels_last", False, "--channels-last"),
        ("spec", None, "install triton"),
        ("compiler", None, "install gcc"),
    ],
)
def test_where_it_lacks_something_auto_is_pytorchs_and_triton_is_refused(
    pretended, name, value, needs
):
    device, channels_last = GPU, True
    if name == "device":
        device = torch.device(value)
    elif name == "capability":
        pretended.setattr(torch.cuda, "get_device_capability", lambda device: value)
    elif name == "channels_last":
        channels_last = value
    elif name == "spec":
        pretended.setattr(kernel_choice.importlib.util, "find_spec", lambda name: value)
    else:
        pretended.setattr(kernel_choice.shutil, "which", lambda name: value)
    model = network("resnet8")
    choose_batch_norm(model, "auto", device, channels_last=channels_last)
    assert model.stem[1].fused_kernel is None
    with pytest.raises(BadInput, match=f"{needs}.*--batch-norm torch"):
        choose_batch_norm(model, "triton", device, channels_last=channels_last)


def test_a_kernel_that_does_not_run_is_one_line():
    def broken(*given):
        raise RuntimeError("gcc: not\n found")

    with pytest.raises(BadInput, match=r"not run here \(gcc: not found\)"):
        kernel_choice.try_kernel(broken, torch.device("cpu"))


class Odd(torch.autograd.Function):
    """Passes values on, and back what is not a number."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


@pytest.mark.parametrize("odd", range(4))
def test_a_kernel_whose_gradients_are_no_numbers_computes_wrongly(odd):
    def kernel(images, workers, weight, bias, eps, shortcut, relu):
        given = [images, weight, bias, shortcut]
        given[odd] = Odd.apply(given[odd])
        return Spelled()(given[0], workers, given[1], given[2], eps, given[3], relu)

    with pytest.raises(BadInput, match="computes wrongly here"):
        kernel_choice.try_kernel(kernel, torch.device("cpu"))
    kernel_choice.try_kernel(Spelled(), torch.device("cpu"))


FAILS = "batch norm by Triton does not run here (no ptxas)"


def fails(kernel, device):
    raise BadInput(FAILS)


@pytest.mark.parametrize("where", ["here", "on another rank"])
def test_where_its_trial_fails_on_any_rank_auto_is_pytorchs_on_all_with_one_line(
    pretended, capsys, where
):
    gathered = []

    def gather(value):
        gathered.append(value)
        return [None, f"on node7 {FAILS}", value]

    if where == "here":
        pretended.setattr(kernel_choice, "try_kernel", fails)
    model = network("resnet8")
    choose_batch_norm(model, "auto", GPU, channels_last=True, gather=gather)
    assert model.stem[1].fused_kernel is None
    (own,) = gathered  # every rank joins in, whatever it found itself
    assert (own is not None) == (where == "here")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("warning: batch norm is computed by PyTorch's")
    assert FAILS in line
    pretended.setenv("OMPI_COMM_WORLD_RANK", "1")
    choose_batch_norm(model, "auto", GPU, channels_last=True, gather=gather)
    assert not capsys.readouterr().out
    with pytest.raises(BadInput, match="on node7 .*no ptxas.*, or set --batch-norm torch"):
        choose_batch_norm(model, "triton", GPU, channels_last=True, gather=gather)


def test_a_triton_that_cannot_be_imported_is_a_failed_trial(pretended, capsys):
    pretended.setitem(sys.modules, "hvd_utils.nn.triton_batch_norm", None)
    model = network("resnet8")
    choose_batch_norm(model, "auto", GPU, channels_last=True)
    assert model.stem[1].fused_kernel is None
    assert "cannot be imported" in capsys.readouterr().out


def test_the_job_chooses_by_its_setting(pretended):
    chosen = []
    pretended.setattr(compile, "choose_batch_norm", lambda *given, **more: chosen.append(given[1]))
    for name in ("benchmark", "deterministic"):  # as they were, afterwards
        pretended.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    model = network("resnet8")
    for choice in ("auto", "torch"):
        settings = SpeedSettings(batch_norm=choice, channels_last=False)
        compile.tune_model(model, settings, torch.device("cpu"))
    assert chosen == ["auto", "torch"]
