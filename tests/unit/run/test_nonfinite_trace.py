"""A loss or gradient that is not finite is traced to the worker and images that made it."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from dali_pipeline.dataset.open_data import open_dataset
from dali_pipeline.sampling.plan import Plan
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.command_line import load_settings
from hvd_utils.horovod_backend.world import World
from hvd_utils.run.nonfinite_trace import REPORT, trace_nonfinite
from hvd_utils.training.nonfinite import NonfiniteError

RATE = {6: 0.25}.get
WORLD = World(0, 1, 0, 1, "here", torch.device("cpu"), 1)


class Poisoned:
    """A loader whose pass of logical worker 2 has an image that is not a number."""

    def __init__(self, plan, poison):
        self.plan, self.poison = plan, poison

    def training(self, first_step, last_step):
        for step, fused in self.plan.training_places(first_step, last_step):
            images = torch.zeros(4, 3, 2, 2)
            if fused.start == 2:
                images[1] = self.poison
            yield images, torch.from_numpy(self.plan.training_batch(step, fused).labels)


@pytest.fixture
def plan():
    settings = load_settings(["--recipe", "demo", "--batch-per-worker", "4"], {})
    settings = settings.with_workers(5)
    return Plan(*open_dataset(settings, WORLD), settings, [range(w, w + 1) for w in range(5)], 0, 1)


def test_the_message_names_step_rate_rank_worker_and_images(plan, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    with (
        pytest.raises(BadInput) as error,
        trace_nonfinite(model, Poisoned(plan, math.nan), plan, RATE, WORLD, tmp_path),
    ):
        raise NonfiniteError(6)
    ids = plan.training_batch(6, range(2, 3)).ids.tolist()
    assert (
        f"the loss became not finite at step 7, learning rate 0.25, on rank 0 (here), "
        f"logical worker 2, images {', '.join(map(str, ids))}: lower --reference-rate"
    ) in str(error.value)
    report = json.loads((tmp_path / REPORT).read_text())
    assert [culprit["worker"] for culprit in report["sources"]] == [2]
    assert report["sources"][0]["images"] == ids


def test_finite_parts_whose_sum_is_not_are_said_to_be_so(plan, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    with (
        pytest.raises(BadInput, match="the sum of the gradients, each of them finite"),
        trace_nonfinite(model, Poisoned(plan, 1.0), plan, RATE, WORLD, tmp_path),
    ):
        raise NonfiniteError(6)
