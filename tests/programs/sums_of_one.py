"""The job's loop as one of two ranks, alone: ``python sums_of_one.py DEVICE CASE CASE``.

Horovod registers its hooks on gradients only where there are several ranks, and one GPU has one.
Here it is told of two while the optimizer is made, and sums over one rank leave what they are given
as it is: the weights have to be those of PyTorch's own SGD. Prints how far apart they are, by case.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from unittest.mock import patch

# Before anything is loaded: products whose rounding does not change from call to call.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import horovod.torch as hvd
import torch
from torch import nn

from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend import environment
from hvd_utils.horovod_backend.flags import SharedFlags
from hvd_utils.horovod_backend.gradient_buckets import bucket_mb
from hvd_utils.horovod_backend.world import World
from hvd_utils.nn.compile import tune_model
from hvd_utils.nn.models import build_model
from hvd_utils.training.loops import train
from hvd_utils.training.optimizer import minibatch_loss, parameter_groups
from hvd_utils.training.train_state import TrainState

STEPS, CLASSES = 4, 10
PASSES = [range(1), range(1, 2)]
SETTINGS = Settings(
    recipe="test",
    model="resnet8",
    workers=2,
    batch_per_worker=8,
    bucket_mb=0.1,  # resnet8 has 0.3 MB of gradients
    nccl_streams=2,
    cudnn_benchmark=False,
    zero_gamma=False,
)
CASES = {
    "buckets": {},
    "no buckets": {"bucket_mb": 0},
    "channels first": {"channels_last": False},
    "fp16": {"compression": "fp16"},
    "bf16": {"compression": "bf16"},
    "compiled": {"compile": "default"},
    "CUDA graphs": {"compile": "cudagraphs"},
}

Update = Callable[[], None]


def main() -> None:
    """Print as JSON the difference by case."""
    device = torch.device(sys.argv[1])
    torch.use_deterministic_algorithms(True)
    environment.prepare(SETTINGS, cuda=device.type == "cuda")
    hvd.init()
    if device.type == "cuda":
        torch.cuda.set_device(0)
        device = torch.device("cuda", 0)
    print(json.dumps({name: difference(device, name) for name in sys.argv[2:]}))


def difference(device: torch.device, case: str) -> float:
    """Return the distance of the weights by how far plain SGD has moved them; 2-norms."""
    settings = SETTINGS.model_copy(update=CASES[case])
    began = torch.cat([p.flatten() for p in make_model(settings, device).parameters()]).detach()
    summed, plain = by_the_job(settings, device), by_pytorch(settings, device)
    return ((summed - plain).norm() / (plain - began).norm()).item()


def by_the_job(settings: Settings, device: torch.device) -> torch.Tensor:
    """Train by the job's loop with Horovod's hooks; return the weights."""
    model = make_model(settings, device)
    with patch("horovod.torch.optimizer.size", lambda: 2), patch.object(hvd, "size", lambda: 2):
        bucket = bucket_mb(settings, cuda=device.type == "cuda")
        state = TrainState.build(model, settings, len(PASSES), 2, bucket)
    assert state.optimizer._requires_update, "Horovod has registered no hooks"
    steps = train(
        state, rate, batches(device), range(STEPS), recipe=settings, passes=PASSES,
        world=World(0, 2, 0, 1, "here", device, 1), flags=SharedFlags(2, stop=lambda: False),
    )  # fmt: skip
    for _ in steps:
        assert not state.optimizer._handles
    state.guard.check()
    return weights(model)


def by_pytorch(settings: Settings, device: torch.device) -> torch.Tensor:
    """Train by nothing but PyTorch; return the weights."""
    model = make_model(settings, device).train()
    source = batches(device)
    groups = parameter_groups(model, settings.weight_decay)
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True, fused=True)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        for _ in PASSES:
            images, labels = next(source)
            minibatch_loss(model(images), labels, settings.minibatch).backward()
        optimizer.step()
        optimizer.zero_grad()
    return weights(model)


def make_model(settings: Settings, device: torch.device) -> nn.Module:
    model = build_model(settings.model, CLASSES, zero_gamma=settings.zero_gamma, seed=1).to(device)
    tune_model(model, settings, device)
    return model


def batches(device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    random = torch.Generator().manual_seed(0)
    while True:
        images = torch.randn(8, 3, 24, 24, generator=random)
        labels = torch.randint(CLASSES, (8,), generator=random)
        yield images.to(device), labels.to(device)


def rate(step: int) -> float:
    return 0.002 * (step + 1)  # no activation is switched on or off by rounding


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


if __name__ == "__main__":
    main()
