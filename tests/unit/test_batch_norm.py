"""Running averages over logical workers: one update a step by the workers' mean."""

import pytest
import torch
from torch import nn

from hvd_utils.batch_norm import (
    batch_norms,
    collect_running_averages,
    running_average_weight,
    set_running_average_weight,
)


@pytest.mark.parametrize("share", [1, 2, 7])
def test_running_averages_take_one_update_a_step_by_the_mean_over_workers(share):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3).double()
    mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    for _ in range(5):
        images = torch.randn(share, 6, 3, 4, 4, dtype=torch.float64) * 2 + 1
        for worker in range(share):
            set_running_average_weight([norm], worker, share)
            norm(images[worker])
        pixels = images.transpose(2, 1).flatten(2)  # (worker, channel, pixel)
        mean = 0.9 * mean + 0.1 * pixels.mean(dim=2).mean(dim=0)
        var = 0.9 * var + 0.1 * pixels.var(dim=2, unbiased=True).mean(dim=0)
    assert torch.allclose(norm.running_mean, mean, rtol=1e-12)
    assert torch.allclose(norm.running_var, var, rtol=1e-12)


def test_one_worker_updates_with_the_papers_momentum():
    assert running_average_weight(0, 1) == pytest.approx(0.1)


def test_normalisation_is_over_the_workers_own_images():
    """Section 2.3: n images, never the whole minibatch, so two workers are not one of twice n."""
    torch.manual_seed(0)
    norm, images = nn.BatchNorm2d(3), torch.randn(8, 3, 4, 4)
    parts = torch.cat([norm(images[:4]), norm(images[4:])])
    assert not torch.allclose(parts, norm(images), atol=1e-3)


def test_collecting_counts_steps_not_passes():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3))
    for _ in range(5):
        model(torch.randn(2, 3, 4, 4))
    norms = batch_norms(model)
    collect_running_averages(norms, share=5, workers=5, step=1)
    assert [norm.num_batches_tracked.item() for norm in norms] == [1, 1]
