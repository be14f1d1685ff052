"""Running averages over logical workers: one update a step by the workers' mean."""

import copy

import pytest
import torch
from torch import nn

from hvd_utils.cli.errors import BadInput
from hvd_utils.nn.batch_norm import (
    WorkerBatchNorm2d,
    batch_norms,
    fused_batch_norm,
    normalise_by_worker,
    traceable_batch_norm,
)
from hvd_utils.nn.models import build_model
from hvd_utils.paper.logical_workers import passes
from hvd_utils.training.running_statistics import RunningStatistics


def alternating(images):
    """Lay (workers, n, ...) out as a fused pass takes it: image i of each worker in turn."""
    return images.transpose(0, 1).flatten(0, 1)


@pytest.mark.parametrize(("share", "fuse"), [(1, 1), (2, 1), (7, 1), (2, 2), (7, 3), (7, 7)])
def test_running_averages_take_one_update_a_step_by_the_mean_over_workers(share, fuse):
    torch.manual_seed(0)
    norm = WorkerBatchNorm2d.like(nn.BatchNorm2d(3).double(), batch_per_worker=6)
    averages = RunningStatistics(nn.Sequential(norm), share, size=1)
    mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    for _ in range(5):
        images = torch.randn(share, 6, 3, 4, 4, dtype=torch.float64) * 2 + 1
        for fused in passes(range(share), fuse):
            norm(alternating(images[fused.start : fused.stop]))
            averages.end_pass(len(fused))
        averages.send(torch.zeros(2))
        averages.receive()
        averages.update(keep=torch.tensor(False))
        pixels = images.transpose(2, 1).flatten(2)  # (worker, channel, pixel)
        mean = 0.9 * mean + 0.1 * pixels.mean(dim=2).mean(dim=0)
        var = 0.9 * var + 0.1 * pixels.var(dim=2, unbiased=True).mean(dim=0)
    assert torch.allclose(norm.running_mean, mean, rtol=1e-12)
    assert torch.allclose(norm.running_var, var, rtol=1e-12)


def test_fused_workers_are_each_normalised_by_their_own_images():
    """Values and every gradient are those of the workers one after the other."""
    torch.manual_seed(0)
    alone = nn.BatchNorm2d(3).double()
    nn.init.normal_(alone.weight)
    together = WorkerBatchNorm2d.like(copy.deepcopy(alone), batch_per_worker=5)
    images = torch.randn(4, 5, 3, 2, 2, dtype=torch.float64) * torch.arange(1, 5).view(
        4, 1, 1, 1, 1
    )
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    target = torch.randn(4, 5, 3, 2, 2, dtype=torch.float64)

    (alternating(target) - together(alternating(ours))).square().sum().backward()
    for worker in range(4):
        (target[worker] - alone(theirs[worker])).square().sum().backward()

    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)
    assert torch.allclose(together.weight.grad, alone.weight.grad, rtol=1e-10)
    assert torch.allclose(together.bias.grad, alone.bias.grad, rtol=1e-10)


def test_what_a_compiler_is_given_is_the_same():
    """Values, statistics and gradients, of images that lie channels-last in memory or not."""
    torch.manual_seed(0)
    images = torch.randn(15, 4, 3, 5, dtype=torch.float64) * 3 + 1
    weight, bias, target = torch.rand(4).double(), torch.rand(4).double(), torch.randn(15, 4, 3, 5)
    found = []
    for form in (fused_batch_norm, traceable_batch_norm):
        for layout in (torch.contiguous_format, torch.channels_last):
            given = [images.contiguous(memory_format=layout), weight.clone(), bias.clone()]
            for tensor in given:
                tensor.requires_grad_()
            results = form(given[0], 3, *given[1:], 1e-5)
            gradients = torch.autograd.grad((results[0] * target).sum(), given)
            found.append([*results, *gradients])
    for other in found[1:]:
        for ours, theirs in zip(other, found[0], strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_fused_batch_norm_evaluates_as_the_plain_one():
    plain = nn.BatchNorm2d(3)
    nn.init.normal_(plain.running_mean)
    fused, images = WorkerBatchNorm2d.like(plain, 4).eval(), torch.randn(7, 3, 2, 2)
    assert torch.equal(fused(images), plain.eval()(images))


def test_batch_norms_are_replaced_under_their_own_names():
    model = build_model("resnet18", 10, zero_gamma=True, seed=1)
    before, names = copy.deepcopy(model.state_dict()), [n for n, _ in model.named_parameters()]
    normalise_by_worker(model, [range(2), range(2, 3)], 4)
    assert all(type(norm) is WorkerBatchNorm2d for norm in batch_norms(model))
    assert len(batch_norms(model)) == 20
    assert [name for name, _ in model.named_parameters()] == names
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_workers_that_go_one_by_one_need_no_other_batch_norm():
    model = nn.Sequential(nn.BatchNorm1d(3))
    normalise_by_worker(model, [range(1), range(1, 2)], 4)
    assert type(model[0]) is nn.BatchNorm1d


def test_a_batch_norm_that_would_mix_workers_is_refused():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    with pytest.raises(BadInput, match="BatchNorm1d '1'.*--fuse-workers 1"):
        normalise_by_worker(model, [range(2)], 4)


def test_normalisation_is_over_the_workers_own_images():
    """Section 2.3: n images, never the whole minibatch, so two workers are not one of twice n."""
    torch.manual_seed(0)
    norm, images = nn.BatchNorm2d(3), torch.randn(8, 3, 4, 4)
    parts = torch.cat([norm(images[:4]), norm(images[4:])])
    assert not torch.allclose(parts, norm(images), atol=1e-3)


def test_a_step_broken_off_leaves_the_averages_of_the_last_whole_one():
    """And a loaded state is what a new collection starts from."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3))
    model[2].running_var.fill_(7)
    averages = RunningStatistics(model, workers=1, size=1)
    model(torch.randn(4, 3, 4, 4))
    averages.end_pass(1)
    assert not (model[2].running_var == 7).any()
    averages.restore()
    assert (model[0].running_mean == 0).all()
    assert (model[2].running_var == 7).all()


def test_totals_travel_with_the_statistics():
    averages = RunningStatistics(nn.Sequential(nn.Linear(2, 2)), workers=1, size=1)
    averages.send(torch.tensor([0.5, 3.0], dtype=torch.float64))
    assert averages.receive().tolist() == [0.5, 3.0]


def test_the_averages_are_left_alone_where_the_update_is():
    averages = RunningStatistics(nn.Sequential(norm := nn.BatchNorm2d(3)), workers=1, size=1)
    for broken in (True, False):
        norm(torch.full((4, 3, 2, 2), float("nan") if broken else 5.0))
        averages.end_pass(1)
        averages.send(torch.zeros(2))
        averages.receive()
        averages.update(keep=torch.tensor(broken))
        assert torch.equal(norm.running_mean, torch.full((3,), 0.0 if broken else 0.5))
