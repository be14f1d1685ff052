"""The job against plain PyTorch: one big minibatch, no Horovod, none of the project's code.

Only the images (as DALI decodes them) and the weights to start from are taken from the project.
"""

from __future__ import annotations

import math

import pytest
import torch
from programs.trajectories import EXPERIMENT, STEPS
from torch.nn import functional

from dali_pipeline.dataset.scan import scan_splits
from dali_pipeline.loading.loader import make_loader
from dali_pipeline.sampling.plan import Plan
from hvd_utils.config.command_line import load_settings
from hvd_utils.inspect.compare import tensors
from hvd_utils.nn.models import build_model

K, N, IMAGES = 8, 4, 72


@pytest.fixture(scope="module")
def minibatches(jpegs):
    """Images (K, N, 3, 16, 16) and labels (K, N) of each step."""
    settings = load_settings([*EXPERIMENT, "--data", str(jpegs)], {})
    plan = Plan(*scan_splits(jpegs), settings, [range(i, i + 1) for i in range(K)], 0, 1)
    loader = make_loader("dali", plan, device=torch.device("cpu"), threads=1)
    batches = [(images.double(), labels) for images, labels in loader.training(0, STEPS)]
    return [
        tuple(torch.stack(part) for part in zip(*batches[K * s : K * s + K], strict=True))
        for s in range(STEPS)
    ]


def learning_rate(step):
    """0.0125 for 8 images, so 0.05 for 32; 2 epochs of warmup; a tenth from epochs 4 and 6 on."""
    warmup = round(2 * IMAGES / (K * N) + 1e-9)
    rate = 0.0125 + (0.05 - 0.0125) * min(1, step / warmup)
    for epoch in (4, 6):
        if step >= math.floor(epoch * IMAGES / (K * N) + 0.5):
            rate *= 0.1
    return rate


class Network:
    """ResNet-8 written out, from the tensors of a state: its loss over a list of groups."""

    def __init__(self, state):
        self.parameters = {
            name: value.double().clone().requires_grad_()
            for name, value in state.items()
            if "running" not in name and "num_batches" not in name
        }
        self.averages = {n: v.double().clone() for n, v in state.items() if "running" in n}
        self.statistics = {}  # of each norm, over the groups of this step

    def norm(self, x, name, groups):
        """Normalise each group of the batch by its own mean and variance."""
        x = x.view(groups, -1, *x.shape[1:])
        mean = x.mean(dim=(1, 3, 4), keepdim=True)
        var = (x - mean).square().mean(dim=(1, 3, 4), keepdim=True)
        count = x[0, :, 0].numel()
        unbiased = var.detach() * count / (count - 1)
        pairs = zip(mean.detach().flatten(1), unbiased.flatten(1), strict=True)
        self.statistics.setdefault(name, []).extend(pairs)
        x = ((x - mean) / (var + 1e-5).sqrt()).flatten(0, 1)
        gamma, beta = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        return x * gamma.view(1, -1, 1, 1) + beta.view(1, -1, 1, 1)

    def convolve(self, x, name, stride=1):
        weight = self.parameters[f"{name}.weight"]
        return functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def logits(self, x, groups):
        x = self.norm(self.convolve(x, "stem.0"), "stem.1", groups).relu()
        for block, stride in (("stages.0", 1), ("stages.1", 2), ("stages.2", 2)):
            y = self.norm(self.convolve(x, f"{block}.conv1", stride), f"{block}.bn1", groups).relu()
            y = self.norm(self.convolve(y, f"{block}.conv2"), f"{block}.bn2", groups)
            if stride > 1:
                shortcut = self.convolve(x, f"{block}.downsample.0", stride)
                x = self.norm(shortcut, f"{block}.downsample.1", groups)
            x = (x + y).relu()
        return x.mean(dim=(2, 3)) @ self.parameters["fc.weight"].T + self.parameters["fc.bias"]

    def update_averages(self):
        """running ← 0.9 · running + 0.1 · mean over the K groups."""
        for name, groups in self.statistics.items():
            assert len(groups) == K
            for key, values in zip(("mean", "var"), zip(*groups, strict=True), strict=True):
                average = self.averages[f"{name}.running_{key}"]
                average.mul_(0.9).add_(0.1 * torch.stack(values).mean(dim=0))
        self.statistics = {}


def train(minibatches, gradients):
    """Train from the project's first weights; ``gradients`` makes one step's backward passes."""
    network = Network(build_model("resnet8", 3, zero_gamma=True, seed=1).state_dict())
    norms = {n for n in network.parameters if "bn" in n or (".1." in n and "conv" not in n)}
    norms -= {n for n in norms if network.parameters[n].dim() > 1}
    decayed = [p for n, p in network.parameters.items() if n not in norms]
    kept = [p for n, p in network.parameters.items() if n in norms]
    assert len(kept) == 2 * 9
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 1e-4}, {"params": kept, "weight_decay": 0}],
        lr=1.0, momentum=0.9, nesterov=True,
    )  # fmt: skip
    for step, (images, labels) in enumerate(minibatches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        optimizer.zero_grad()
        gradients(network, images, labels)
        optimizer.step()
        network.update_averages()
    return network, [state["momentum_buffer"] for state in optimizer.state.values()]


def one_big_minibatch(network, images, labels):
    logits = network.logits(images.flatten(0, 1), groups=K)
    functional.cross_entropy(logits, labels.flatten()).backward()


def accumulated(network, images, labels):
    """Footnote 5: the gradients of K small minibatches added up, and divided by their number."""
    for x, y in zip(images, labels, strict=True):
        functional.cross_entropy(network.logits(x, groups=1), y).backward()
    for parameter in network.parameters.values():
        parameter.grad /= K


@pytest.mark.parametrize("gradients", [one_big_minibatch, accumulated])
def test_the_job_makes_the_steps_of_plain_pytorch(minibatches, alone, gradients):
    network, momenta = train(minibatches, gradients)
    ours = tensors(alone["fp64"])
    assert set(ours["weights"]) == set(network.parameters)
    for name, expected in network.parameters.items():
        assert torch.allclose(ours["weights"][name], expected, rtol=1e-10, atol=1e-12), name
    for name, expected in network.averages.items():
        assert torch.allclose(ours["running averages"][name], expected, rtol=1e-10, atol=1e-12)
    ours_sorted, theirs = (
        sorted(value.abs().max().item() for value in values)
        for values in (ours["momentum"].values(), momenta)
    )
    assert ours_sorted == pytest.approx(theirs, rel=1e-10)
