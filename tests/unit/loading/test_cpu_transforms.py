"""Finishing threads take one core each; the trainer keeps its own."""

from __future__ import annotations

from threading import Barrier

import numpy as np
import pytest
import torch

from dali_pipeline.loading.dali.cpu_transforms import CpuTransforms
from dali_pipeline.sampling.crops import Windows
from dali_pipeline.sampling.plan import TrainingBatch


@pytest.fixture
def four_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_each_finishing_thread_uses_one_core_after_work_too(four_cores):
    """PyTorch settles a thread's number at its first parallel work, not when it is set."""
    threads = 3
    cpu_transforms = CpuTransforms(threads, largest=40, antialias=True)
    crops = [torch.zeros(64, 48, 3, dtype=torch.uint8)] * 6
    ids = np.zeros(6, np.int32)
    batch = TrainingBatch(ids, ids, Windows(ids, ids, ids, ids), flips=ids, side=32)
    assert cpu_transforms.training(crops, batch).shape == (6, 3, 32, 32)

    together = Barrier(threads, timeout=60)  # so that every thread answers once

    def cores(_: int) -> int:
        together.wait()
        return torch.get_num_threads()

    assert list(cpu_transforms._pool.map(cores, range(threads))) == [1] * threads
    assert torch.get_num_threads() == 4
