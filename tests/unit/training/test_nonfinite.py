"""Updates of sums that are not finite are left out on the device; fp16 overcomes an overflow."""

import math

import pytest
import torch
from torch import nn

from hvd_utils.config.settings import Settings
from hvd_utils.training.loss_scaler import FIRST_SCALE, LARGEST_SCALE, PATIENCE, LossScaler
from hvd_utils.training.nonfinite import Guard, NonfiniteError, all_finite
from hvd_utils.training.optimizer import build_optimizer

CPU = torch.device("cpu")


class Training:
    """Steps of one layer, whose gradients are as they are told to be."""

    def __init__(self, precision="fp32", optimizer="sgd"):
        self.layer = nn.Linear(3, 2)
        self.optimizer = build_optimizer(self.layer, Settings(recipe="x", optimizer=optimizer), 1)
        self.guard = Guard(precision, 1, CPU)
        self.made = 0

    def step(self, loss=1.0, gradient=1.0):
        self.optimizer.zero_grad()
        self.guard.scaled(self.layer.weight.sum() + self.layer.bias.sum()).backward()
        self.optimizer.synchronize()
        self.layer.weight.grad[0, 0] *= gradient
        self.made += 1
        self.guard.update(self.optimizer, self.made - 1, torch.tensor(loss))

    def state(self):
        momenta = [s["momentum_buffer"] for s in self.optimizer.state.values()]
        return [value.detach().clone() for value in (*self.layer.parameters(), *momenta)]


def equal(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_every_element_counts():
    gradients = [torch.zeros(3), torch.zeros(2, 2)]
    assert all_finite(gradients)
    gradients[1][1, 0] = -math.inf
    assert not all_finite(gradients)
    gradients[1][1, 0] = math.nan
    assert not all_finite(gradients)


@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
@pytest.mark.parametrize("wrong", [{"loss": math.nan}, {"gradient": math.inf}])
def test_nothing_is_updated_from_a_wrong_step_on_until_the_host_looks(wrong, optimizer):
    """As on a GPU, where the host has queued several steps more by then."""
    training = Training(optimizer=optimizer)
    training.guard._waits = False
    for _ in range(3):
        training.step()
    training.guard.check()
    before = training.state()
    training.step(**wrong)
    for _ in range(4):
        training.step()
    assert equal(training.state(), before)
    with pytest.raises(NonfiniteError) as error:
        training.guard.check()
    assert error.value.step == 3


def test_where_looking_is_free_a_wrong_step_is_found_at_once():
    training = Training()
    training.step()
    with pytest.raises(NonfiniteError):
        training.step(loss=math.inf)


@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_the_update_in_fp16_is_of_gradients_without_the_scale(optimizer):
    torch.manual_seed(0)
    scaled = Training("fp16", optimizer)
    torch.manual_seed(0)
    plain = Training("fp32", optimizer)
    for _ in range(3):
        scaled.step()
        plain.step()
    assert scaled.guard.scaled(torch.tensor(1.0)) == FIRST_SCALE
    assert torch.allclose(scaled.layer.weight, plain.layer.weight, rtol=1e-6)
    assert torch.allclose(scaled.layer.bias, plain.layer.bias, rtol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_an_overflow_in_fp16_leaves_one_update_out_the_first_too(optimizer):
    training = Training("fp16", optimizer)
    before = training.state()
    training.step(gradient=math.inf)
    assert equal(training.state(), before)
    assert training.guard.facts() == {"loss_scale": FIRST_SCALE / 2, "updates_left_out": 1}
    training.step()
    assert not equal(training.state(), before)


def test_a_loss_that_is_not_finite_ends_fp16_too():
    with pytest.raises(NonfiniteError):
        Training("fp16").step(loss=math.nan, gradient=math.nan)


def test_gradients_that_overflow_at_any_scale_are_a_failure():
    training = Training("fp16")
    for _ in range(17):
        training.step(gradient=math.inf)
    assert training.guard.facts()["loss_scale"] == 0.5
    with pytest.raises(NonfiniteError):
        training.step(gradient=math.inf)


def test_the_scale_goes_with_the_checkpoint():
    ours, theirs = Training("fp16"), Training("fp16")
    for wrong in (True, False, True):
        ours.step(gradient=math.inf if wrong else 1.0)
    theirs.guard.load_state_dict(ours.guard.state_dict())
    assert theirs.guard.facts() == ours.guard.facts()
    theirs.guard.load_state_dict({})  # of a checkpoint from before
    assert Training("fp32").guard.state_dict() == {}


def test_the_scale_moves_as_that_of_pytorch():
    ours = LossScaler(1, CPU)
    theirs = torch.amp.GradScaler("cpu", init_scale=FIRST_SCALE, growth_interval=PATIENCE)
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], 0.1)
    wrong = {3, 4, 2100, 4101}
    for step in range(6200):
        theirs.scale(weight.sum()).backward()
        if step in wrong:
            weight.grad.fill_(math.inf)
        theirs.step(optimizer)
        theirs.update()
        optimizer.zero_grad()
        ours.update(torch.tensor(step in wrong))
        assert ours.scale.item() == theirs.get_scale(), step


def test_the_first_scale_makes_up_for_the_division_by_all_workers():
    """A worker's part of the loss is a k-th of its own mean, and so are its gradients."""
    assert LossScaler(256, CPU).scale == 256 * LossScaler(1, CPU).scale


def test_the_scale_is_bounded_so_that_it_can_always_be_halved():
    """An infinite scale would stay infinite, and no update be made any more."""
    scaler = LossScaler(1, torch.device("cpu"))
    scaler.load_state_dict({"scale": LARGEST_SCALE, "since_overflow": PATIENCE - 1})
    scaler.update(torch.tensor(False))
    assert scaler.scale.item() == LARGEST_SCALE
    scaler.update(torch.tensor(True))
    assert scaler.scale.item() == LARGEST_SCALE / 2
