"""Sums by NCCL: Horovod's, and those of preflight."""

from __future__ import annotations

import horovod.torch as hvd
import pytest
import torch
from support.loaders import SETTINGS

from hvd_utils.horovod_backend.environment import horovod_variables
from hvd_utils.preflight.child import Child

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("grouped", [False, True])
def test_horovod_sums_on_the_gpu_by_nccl(grouped, monkeypatch):
    """What is queued after ``synchronize`` finds the sum of what was queued before it began."""
    for name, value in horovod_variables(SETTINGS, cuda=True, elastic=False).items():
        monkeypatch.setenv(name, value)
    hvd.init()
    assert hvd.nccl_built()
    matrix = torch.full((4096, 4096), 1 / 4096, device="cuda")
    for _ in range(3):
        late = torch.ones_like(matrix)
        for _ in range(20):
            late = late @ matrix
        handle = (
            hvd.grouped_allreduce_async_([late, late[0].clone()], op=hvd.Sum)
            if grouped
            else hvd.allreduce_async_(late, op=hvd.Sum)
        )
        hvd.synchronize(handle)
        assert torch.equal(late.mul(2), torch.full_like(late, 2 * hvd.size()))


def test_preflight_sums_by_nccl():
    """One rank, with itself; two would need a second GPU."""
    child = Child()
    try:
        settings = SETTINGS.model_copy(update={"device": "cuda"}).model_dump(mode="json")
        place = {"rank": 0, "local_rank": 0, "local_size": 1}
        met = child.ask("meet", 120, settings=settings, place=place, shared=True)
        seconds = child.ask(
            "sum", 120, settings=settings, place=place, groups=[[0]], meetings=[met],
            repetitions=3, size=100_000_000,
        )  # fmt: skip
    finally:
        child.close()
    assert seconds > 0
