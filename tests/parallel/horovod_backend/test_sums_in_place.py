"""Gradients that lie side by side are summed in place, and as any others."""

from __future__ import annotations

import json

from support.launching import launch

PROGRAM = """
import json, sys
import torch
from hvd_utils.horovod_backend.environment import prepare
from hvd_utils.config.settings import Settings
settings = Settings(recipe="test", model="resnet8")
prepare(settings, cuda=False)
from hvd_utils.horovod_backend.world import start_world
world = start_world("cpu")
from hvd_utils.nn.memory_format import set_memory_format
from hvd_utils.nn.models import build_model
from hvd_utils.training.optimizer import build_optimizer

def network():
    model = build_model("resnet8", 10, zero_gamma=False, seed=1).double()
    set_memory_format(model, channels_last=True)
    return model

def passes(model, rank):
    torch.manual_seed(rank)
    for _ in range(2):
        model(torch.randn(4, 3, 24, 24, dtype=torch.float64)).square().sum().backward()

model = network()
optimizer = build_optimizer(model, settings, 2, bucket_mb=0.1)
for step in range(2):
    passes(model, world.rank)
    places = [parameter.grad.data_ptr() for parameter in model.parameters()]
    optimizer.synchronize()
    assert places == [parameter.grad.data_ptr() for parameter in model.parameters()]
    found = [parameter.grad.clone() for parameter in model.parameters()]
    optimizer.zero_grad()

alone = network()
for rank in range(world.size):
    passes(alone, rank)
worst = max((a - p.grad).abs().max().item() for a, p in zip(found, alone.parameters()))
largest = max(p.grad.abs().max().item() for p in alone.parameters())
print("worst", json.dumps(worst / largest), flush=True)
"""


def test_sums_in_place_are_the_sums():
    ended = launch(["-c", PROGRAM], ranks=2)
    assert ended.code == 0, ended.output
    told = [line.split("worst ")[1] for line in ended.output.splitlines() if "worst " in line]
    assert len(told) == 2
    assert all(json.loads(worst) < 1e-12 for worst in told)
