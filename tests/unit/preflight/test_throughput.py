"""What preflight measures is what the job does."""

import pytest
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
    found = training_rate(settings, torch.device("cpu"), 1, 1, 10, 0.01)
    assert found["batch"] == 4
    assert set(seen) == {(4, 2)}


def test_frozen_parameters_are_not_trained():
    """Nor are their gradients summed."""
    trained = []
    for frozen in ("", "fc"):
        settings = Settings(
            recipe="test", model="resnet8", resolution=16, workers=1, batch_per_worker=2,
            freeze=frozen,
        )  # fmt: skip
        found = training_rate(settings, torch.device("cpu"), 1, 1, 10, 0.0)
        trained.append(found["parameters"])
    assert trained[0] - trained[1] == (64 + 1) * 10  # the last layer's weights and biases


@pytest.mark.parametrize(
    ("workers", "ranks", "fuse", "images"),
    [
        (8, 8, 8, 2),  # a worker each
        (8, 1, 8, 16),
        (8, 3, 8, 6),  # 2, 3 and 3 workers
        (4, 1, 3, 4),  # two passes of two
        (None, 2, 8, 2),
    ],
)
def test_a_pass_is_as_large_as_the_jobs_on_so_many_ranks(workers, ranks, fuse, images):
    settings = Settings(
        recipe="test", model="resnet8", resolution=16, workers=workers, batch_per_worker=2,
        fuse_workers=fuse,
    )  # fmt: skip
    assert training_rate(settings, torch.device("cpu"), 1, ranks, 10, 0.0)["batch"] == images
