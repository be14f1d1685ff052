"""What preflight measures is what the job does."""

import torch

from hvd_utils.config.settings import Settings
from hvd_utils.nn import batch_norm
from hvd_utils.preflight.checks.throughput import training_rate


def test_fused_workers_are_normalised_each_by_itself(monkeypatch):
    """As in the job: one plain batch norm over all of them is quicker on a GPU by a quarter."""
    seen = []
    forward = batch_norm.WorkerBatchNorm2d.forward

    def noted(norm, images):
        seen.append((len(images), norm.batch_per_worker))
        return forward(norm, images)

    monkeypatch.setattr(batch_norm.WorkerBatchNorm2d, "forward", noted)
    settings = Settings(
        recipe="test", model="resnet8", resolution=16, workers=4, batch_per_worker=2, fuse_workers=2
    )
    found = training_rate(settings, torch.device("cpu"), 1, 10, 0.01)
    assert found["batch"] == 4
    assert set(seen) == {(4, 2)}
