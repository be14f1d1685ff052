"""Weight decay by module type, the loss over kn, and momentum without correction."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from hvd_utils.config.settings import Settings
from hvd_utils.networks.freezing import freeze
from hvd_utils.nn.models import build_model
from hvd_utils.training.optimizer import build_optimizer, minibatch_loss, parameter_groups, set_rate

RECIPE = Settings(recipe="paper")


def test_batch_norms_do_not_decay_those_of_shortcuts_included():
    model = build_model("resnet50", 10, zero_gamma=True, seed=1)
    decayed, kept = parameter_groups(model, 1e-4)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (1e-4, 0.0)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 53
    assert {id(p) for p in kept["params"]} == {id(p) for m in norms for p in m.parameters()}
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))
    shortcut = model.layer1[0].downsample[1].weight  # no "bn" in its name
    assert any(p is shortcut for p in kept["params"])


def test_the_control_decays_everything():
    model = build_model("resnet8", 10, zero_gamma=True, seed=1)
    (everything,) = parameter_groups(model, 1e-4, decay_batch_norm=True)
    assert len(everything["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("name", ["sgd", "lars"])
def test_frozen_parameters_have_neither_decay_nor_momentum_and_the_head_its_own_rate(name):
    model = build_model("resnet8", 10, zero_gamma=True, seed=1)
    freeze(model, ["stem", "fc.bias"])
    recipe = RECIPE.model_copy(update={"optimizer": name, "head_rate": 4})
    optimizer = build_optimizer(model, recipe, passes=1)
    set_rate(optimizer, 0.5)
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in model.parameters() if p.requires_grad}
    assert len(trained) == len(list(model.parameters())) - 4
    assert optimizer.state.keys() == set(trained)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["lr"] == (2.0 if parameter is model.fc.weight else 0.5)


def test_losses_are_normalised_by_the_total_minibatch():
    """Remark 3: the workers' losses add up to the mean over all kn images, whatever the shares."""
    logits, labels = torch.randn(10, 4, dtype=torch.float64), torch.arange(10) % 4
    parts = [minibatch_loss(logits[a:b], labels[a:b], 10) for a, b in ((0, 2), (2, 3), (3, 10))]
    assert sum(parts).item() == pytest.approx(functional.cross_entropy(logits, labels).item())


def test_label_smoothing_spreads_a_share_of_the_label_over_all_classes():
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 5, dtype=torch.float64), torch.arange(6) % 5
    targets = 0.9 * functional.one_hot(labels, 5) + 0.1 / 5
    expected = -(targets * logits.log_softmax(dim=1)).sum() / 12  # of kn = 12 images
    assert minibatch_loss(logits, labels, 12, 0.1).item() == pytest.approx(expected.item())


def test_momentum_needs_no_correction_when_the_rate_changes():
    """Remark 2: u ← m·u + g, w ← w − η·(g + m·u) with Nesterov, each step with its own η."""
    layer = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(layer.weight, 2.0)
    optimizer = build_optimizer(layer, RECIPE, passes=1)
    w, u = 2.0, 0.0
    for rate in (0.1, 0.4, 0.4, 0.04):
        set_rate(optimizer, rate)
        optimizer.zero_grad()
        (layer.weight.square().sum() * 0.5).backward()  # gradient w
        optimizer.step()
        g = w + 1e-4 * w  # weight decay is in the gradient, not in the scaled loss (Remark 1)
        u = 0.9 * u + g
        w -= rate * (g + 0.9 * u)
        assert layer.weight.item() == pytest.approx(w, rel=1e-12)


RATES = (0.1, 0.4, 0.4, 0.04)


def weights_by(form, nesterov=True, rates=RATES, resume_at=None):
    """A layer's weights after each step, whose rates change."""
    recipe = Settings(recipe="paper", momentum_form=form, nesterov=nesterov)
    torch.manual_seed(3)
    layer = nn.Linear(3, 2).double()
    optimizer = build_optimizer(layer, recipe, passes=1)
    path = []
    for step, rate in enumerate(rates):
        if step == resume_at:
            saved = copy.deepcopy(optimizer.state_dict())
            optimizer = build_optimizer(layer, recipe, passes=1)
            optimizer.load_state_dict(saved)
        set_rate(optimizer, rate)
        optimizer.zero_grad()
        (layer.weight.square().sum() * 0.5 + layer.bias.square().sum()).backward()
        optimizer.step()
        path.append(layer.weight.detach().clone())
    return torch.stack(path)


@pytest.mark.parametrize("nesterov", [True, False])
def test_the_rate_inside_the_momentum_is_equivalent_with_its_correction_alone(nesterov):
    """Remark 2: equations (9) and (10), whose rates change; for a fixed rate both are one."""
    outside = weights_by("rate-outside", nesterov)
    assert torch.allclose(weights_by("rate-inside", nesterov), outside, rtol=1e-12)
    wrong = weights_by("rate-inside-uncorrected", nesterov)
    assert torch.allclose(wrong[0], outside[0], rtol=1e-12)
    assert (wrong[1:] - outside[1:]).abs().amin(dim=(1, 2)).min() > 1e-4
    fixed = (0.1,) * 4
    for form in ("rate-inside", "rate-inside-uncorrected"):
        expected = weights_by("rate-outside", nesterov, fixed)
        assert torch.allclose(weights_by(form, nesterov, fixed), expected, rtol=1e-12)


def test_without_correction_the_momentum_holds_steps_at_their_own_rates():
    """v ← m·v + η·g, w ← w − v, computed by hand."""
    w, v = weights_by("rate-outside", False, rates=(1e-30,))[0], 0.0
    for rate, after in zip(
        RATES, weights_by("rate-inside-uncorrected", nesterov=False), strict=True
    ):
        v = 0.9 * v + rate * (w + 1e-4 * w)
        w = w - v
        assert torch.allclose(after, w, rtol=1e-12)


@pytest.mark.parametrize("form", ["rate-inside", "rate-inside-uncorrected"])
def test_a_rate_that_changes_between_two_launches_is_corrected_for(form):
    """The rate of the last update is in the checkpoint."""
    assert torch.equal(weights_by(form, resume_at=1), weights_by(form))


def test_the_optimizer_is_the_papers():
    optimizer = build_optimizer(build_model("resnet8", 10, zero_gamma=True, seed=1), RECIPE, 1)
    for group in optimizer.param_groups:
        assert (group["momentum"], group["nesterov"], group["dampening"]) == (0.9, True, 0)
