"""Networks of torchvision and timm train as the paper's do: one trajectory, on any processes.

Each makes a step of k = 4 workers in three ways, in doubles: one process carries all workers, one
after the other; two processes carry two each; one process carries them two in a pass.
"""

import copy
import itertools

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend.flags import SharedFlags
from hvd_utils.horovod_backend.world import World
from hvd_utils.nn.batch_norm import batch_norms, normalise_by_worker
from hvd_utils.nn.dropout_seeds import seed_random_modules
from hvd_utils.nn.models import build_model
from hvd_utils.paper.logical_workers import passes, share
from hvd_utils.training.loops import train
from hvd_utils.training.optimizer import build_optimizer, minibatch_loss, set_rate
from hvd_utils.training.running_statistics import MOMENTUM
from hvd_utils.training.train_state import TrainState

WORKERS, BATCH, STEPS, CLASSES, RATE = 4, 3, 1, 5, 0.05
WORLD = World(0, 1, 0, 1, "here", torch.device("cpu"), 1)
RECIPE = Settings(recipe="paper", workers=WORKERS, batch_per_worker=BATCH, precision="fp64")
LIMIT = 1e-10

SIDES = {  # of the networks' images; they are small, so that this takes seconds
    # torchvision
    "squeezenet1_1": 64,
    "mobilenet_v2": 64,
    "torchvision/mobilenet_v3_small": 64,
    "shufflenet_v2_x0_5": 64,
    "mnasnet0_5": 64,
    "regnet_y_400mf": 64,
    "googlenet": 64,
    # timm
    "timm/test_resnet": 64,
    "timm/test_byobnet": 64,
    "timm/test_efficientnet": 64,
    "timm/test_efficientnet_gn": 64,
    "timm/test_convnext": 64,
    "timm/test_nfnet": 64,
    "timm/test_mambaout": 64,
    "timm/test_vit": 160,
    "timm/regnety_002": 64,
    "timm/mobilenetv3_small_050": 64,
    "timm/ghostnet_050": 64,
    "timm/lcnet_050": 64,
    "timm/mobilevit_xxs": 64,
    "timm/repvgg_a0": 32,
    "timm/rexnet_100": 64,
    "timm/levit_128s": 224,
}
SLOW = ("mnasnet0_5", "regnet_y_400mf", "timm/rexnet_100", "timm/repvgg_a0", "timm/levit_128s")
ONE_BY_ONE = {"timm/levit_128s"}  # has batch norms of vectors, through which none are fused


def network(name, side):
    return build_model(name, CLASSES, zero_gamma=False, seed=1, sides=[side]).double()


def batch(step, worker, side):
    random = torch.Generator().manual_seed(100 * step + worker)
    images = torch.randn(BATCH, 3, side, side, generator=random, dtype=torch.float64)
    return images, torch.randint(CLASSES, (BATCH,), generator=random)


def alternating(step, fused, side):
    """Return the images of the workers of a pass as the plan lays them out."""
    images, labels = zip(*(batch(step, worker, side) for worker in fused), strict=True)
    return torch.stack(images, 1).flatten(0, 1), torch.stack(labels, 1).flatten()


def on_one_process(model, side, fuse=1):
    """Return what the project's own loop makes of the model."""
    together = passes(range(WORKERS), fuse)
    normalise_by_worker(model, together, BATCH)
    state = TrainState.build(model, RECIPE, len(together), size=1)
    batches = (
        alternating(s, fused, side) for s, fused in itertools.product(range(STEPS), together)
    )
    for _ in train(
        state, lambda step: RATE, batches, range(STEPS),
        recipe=RECIPE, passes=together, world=WORLD, flags=SharedFlags(0),
    ):  # fmt: skip
        pass
    return model


def on_two_processes(model, side):
    """Return what two processes make of it whose gradients and statistics are summed by hand."""
    optimizer = build_optimizer(model, RECIPE, 1)
    set_rate(optimizer, RATE)
    for step in range(STEPS):
        copies = [copy.deepcopy(model).train() for _ in range(2)]
        sums = [
            torch.zeros_like(b) for n in batch_norms(model) for b in (n.running_mean, n.running_var)
        ]
        for rank, one in enumerate(copies):
            norms = batch_norms(one)
            for norm in norms:
                norm.momentum = 1.0
            for worker in share(WORKERS, rank, 2):
                seed_random_modules(RECIPE.seed, step, worker)
                images, labels = batch(step, worker, side)
                minibatch_loss(one(images), labels, WORKERS * BATCH).backward()
                own = [b for n in norms for b in (n.running_mean, n.running_var)]
                for total, statistics in zip(sums, own, strict=True):
                    total += statistics / WORKERS
        for parameter, *parts in zip(
            model.parameters(), *(c.parameters() for c in copies), strict=True
        ):
            grads = [part.grad for part in parts if part.grad is not None]
            parameter.grad = sum(grads) if grads else torch.zeros_like(parameter)
        with optimizer.skip_synchronize():
            optimizer.step()
        own = [b for n in batch_norms(model) for b in (n.running_mean, n.running_var)]
        for average, mean in zip(own, sums, strict=True):
            average.lerp_(mean, MOMENTUM)
        optimizer.zero_grad()
    return model


def apart(ours, theirs):
    """Return the largest difference, relative to each tensor's largest magnitude."""
    ours, theirs = ours.state_dict(), theirs.state_dict()
    assert ours.keys() == theirs.keys()
    floating = [n for n, value in ours.items() if value.is_floating_point() and value.numel()]
    return max(
        ((ours[n] - theirs[n]).abs().max() / theirs[n].abs().max().clamp(min=1e-3)).item()
        for n in floating
    )


def draws_no_random_numbers(model):
    for module in model.modules():
        if isinstance(module, nn.Dropout | StochasticDepth):
            module.p = 0.0
        if hasattr(module, "drop_rate"):
            module.drop_rate = 0.0
    return model


@pytest.mark.parametrize(
    ("name", "side"),
    [
        pytest.param(*item, marks=pytest.mark.long if item[0] in SLOW else [])
        for item in SIDES.items()
    ],
)
def test_a_network_makes_the_same_steps_on_two_processes_and_in_fused_passes(name, side):
    first = network(name, side)
    one = on_one_process(copy.deepcopy(first), side)
    two = on_two_processes(copy.deepcopy(first), side)
    assert apart(two, one) < LIMIT
    assert apart(one, first) > 1e3 * LIMIT
    quiet = draws_no_random_numbers(first)
    if name in ONE_BY_ONE:
        with pytest.raises(BadInput, match="cannot be fused through BatchNorm1d"):
            on_one_process(quiet, side, fuse=2)
        return
    fused = on_one_process(copy.deepcopy(quiet), side, fuse=2)
    assert apart(fused, on_one_process(quiet, side)) < LIMIT
