"""LARS: its step by the formula, what it leaves alone, and a run that goes on to the bit."""

import copy

import pytest
import torch
from torch import nn

from hvd_utils.config.settings import Settings
from hvd_utils.nn.models import build_model
from hvd_utils.training.optimizer import build_optimizer, set_rate

RECIPE = Settings(
    recipe="x",
    optimizer="lars",
    nesterov=False,
    weight_decay=0.01,
    trust_coefficient=0.002,
)


def small_model():
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)
    return nn.Sequential(*layers).double().to(memory_format=torch.channels_last)


def backward(model, seed):
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(5, 2, 4, 4, generator=random, dtype=torch.float64)
    model.zero_grad()
    model(images).square().sum().backward()


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.01, 0.0])
def test_the_step_is_that_of_the_formula(nesterov, decay):
    """λ = c·|w| / (|g| + β·|w|); u ← m·u + λ·(g + β·w); w ← w − η·u, or − η·(λ·(…) + m·u)."""
    model = small_model()
    recipe = RECIPE.model_copy(update={"nesterov": nesterov, "weight_decay": decay})
    optimizer = build_optimizer(model, recipe, 1)
    weights = [p.detach().clone() for p in model.parameters()]
    momenta = [torch.zeros_like(w) for w in weights]
    for step, rate in enumerate((0.5, 2.0, 2.0, 0.1)):
        set_rate(optimizer, rate)
        backward(model, step)
        gradients = [p.grad.clone() for p in model.parameters()]
        optimizer.step()
        for w, u, g, p in zip(weights, momenta, gradients, model.parameters(), strict=True):
            if w.ndim > 1:  # γ, β and biases: as SGD without decay
                trust = 0.002 * w.norm() / (g.norm() + decay * w.norm())
                g = trust * (g + decay * w)
            u.mul_(0.9).add_(g)
            w -= rate * (g + 0.9 * u if nesterov else u)
            assert torch.allclose(p, w, rtol=1e-6, atol=0)  # timm adds 1e-8 to the divisor


def test_batch_norms_and_biases_are_neither_decayed_nor_adapted():
    model = build_model("resnet8", 10, zero_gamma=True, seed=1)
    adapted, rest = build_optimizer(model, RECIPE, 1).param_groups
    assert (adapted["weight_decay"], adapted["always_adapt"]) == (0.01, True)
    assert (rest["weight_decay"], rest["always_adapt"]) == (0.0, False)
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert {id(p) for p in adapted["params"]} == {id(layer.weight) for layer in layers}
    assert len(adapted["params"]) + len(rest["params"]) == len(list(model.parameters()))


def test_what_goes_on_from_a_saved_state_is_the_same_to_the_bit():
    whole = small_model()
    optimizer = build_optimizer(whole, RECIPE, 1)
    for step in range(6):
        if step == 3:
            saved = copy.deepcopy((whole.state_dict(), optimizer.state_dict()))
        backward(whole, step)
        optimizer.step()
    resumed = small_model()
    optimizer = build_optimizer(resumed, RECIPE, 1)
    resumed.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    for step in range(3, 6):
        backward(resumed, step)
        optimizer.step()
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
