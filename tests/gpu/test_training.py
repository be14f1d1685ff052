"""The job on a GPU: the run of the CPU, without a wait of the host in a step."""

from __future__ import annotations

import horovod.torch as hvd
import pytest
import torch
from support.launching import TINY, train
from support.loaders import SETTINGS

from benchmarks.harness.loop import Loop
from hvd_utils.horovod_backend.world import World
from hvd_utils.inspect.compare import differences, newest
from hvd_utils.nn.ema import AveragedWeights
from hvd_utils.nn.models import build_model
from hvd_utils.run.event_log import read_events

pytestmark = pytest.mark.gpu
COMPILES = 400  # seconds that a run may take which compiles, cold
WORLD = World(0, 1, 0, 1, "here", torch.device("cuda", 0), 2)


def test_the_job_trains_on_the_gpu(tiny_data, tmp_path):
    ended = train("--data", tiny_data, "--output", tmp_path, "--device", "cuda", *TINY, by="python")
    assert ended.code == 0, ended.output
    epochs = [event for event in read_events(tmp_path) if event["event"] == "epoch"]
    assert [epoch["val_images"] for epoch in epochs] == [7, 7]


@pytest.mark.parametrize(
    "how",
    [
        ("--optimizer", "sgd"),
        ("--optimizer", "lars"),
        ("--channels-last", "--batch-norm", "triton"),
        ("--channels-last", "--batch-norm", "torch"),
    ],
)
def test_fused_workers_make_the_same_run_on_the_gpu(tiny_data, tmp_path, how):
    ends = []
    for fuse in (1, 3):
        options = ("--workers", 3, "--precision", "fp64", "--fuse-workers", fuse, *how)
        run = tmp_path / str(fuse)
        ended = train("--data", tiny_data, "--output", run, *options, *TINY, by="python")
        assert ended.code == 0, ended.output
        ends.append(newest(run))
    assert max(differences(*ends).values()) < 1e-8


def test_tritons_batch_norm_makes_the_same_run(tiny_data, tmp_path):
    ends = []
    for kernels in ("triton", "torch"):
        options = ("--workers", 3, "--precision", "fp64", "--channels-last", "--no-zero-gamma")
        run = tmp_path / kernels
        given = ("--data", tiny_data, "--output", run, "--batch-norm", kernels)
        ended = train(*given, *options, *TINY, by="python")
        assert ended.code == 0, ended.output
        ends.append(newest(run))
    assert 0 < max(differences(*ends).values()) < 1e-8


def test_cuda_graphs_accumulate_the_gradients_of_several_passes(tiny_data, tmp_path):
    """Each pass writes its gradients to the same memory."""
    ends = []
    for mode in ("none", "cudagraphs"):
        options = ("--workers", 3, "--fuse-workers", 1, "--compile", mode, "--no-zero-gamma")
        run = tmp_path / mode
        where = ("--data", tiny_data, "--output", run)
        ended = train(*where, *options, *TINY, by="python", timeout=COMPILES)
        assert ended.code == 0, ended.output
        ends.append(newest(run))
        skips = [event for event in read_events(run) if event["event"] == "cudagraph_skips"]
        assert not skips, skips
    assert differences(*ends)["weights"] < 1e-3


def test_the_host_waits_for_nothing_in_a_step():
    """PyTorch raises where it would."""
    hvd.init()
    loop = Loop(SETTINGS.model_copy(update={"loader": "synthetic"}), 2, WORLD)
    loop.run(5)
    torch.cuda.set_sync_debug_mode("error")
    try:
        loop.queue(10)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_averaging_waits_for_nothing_and_is_that_of_the_cpu():
    recipe, ends = SETTINGS.model_copy(update={"average": "ema"}), []
    for device in ("cuda", "cpu"):
        model = build_model("resnet8", 5, zero_gamma=True, seed=1).to(device)
        averaged, made = AveragedWeights(model, recipe), torch.tensor([True, False, True])
        made = made.to(device)
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            for step in range(3):
                with torch.no_grad():
                    model.fc.weight.add_(step)
                averaged.update(step, made[step])
        finally:
            torch.cuda.set_sync_debug_mode("default")
        ends.append(averaged.state_dict()["fc.weight"].cpu())
    assert torch.allclose(*ends)
