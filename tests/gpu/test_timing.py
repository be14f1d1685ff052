"""What is timed on a GPU: the stopwatch, profiles, and the benchmarks."""

from __future__ import annotations

import gzip
import json
import time

import pytest
import torch
from support.launching import TINY, launch, train

from hvd_utils.faults.heartbeat import COMPUTING, FINISHING, READING
from hvd_utils.timing.stopwatch import DeviceStopwatch

pytestmark = pytest.mark.gpu
COMPILES = 400  # seconds that a run may take which compiles, cold


def test_the_stopwatch_counts_what_delays_the_gpu_not_what_the_host_does():
    """Images that are late keep it idle only where it is done with what was queued before."""
    watch, size = DeviceStopwatch(), 8192
    matrix = torch.ones(size, size, device="cuda")
    torch.cuda.synchronize()
    for doing, host_seconds, products in (
        (READING, 0.2, 0),  # nothing is queued: idle for so long
        (COMPUTING, 0.0, 40),  # queued at once
        (READING, 0.001, 0),  # reads while the device still computes
        (COMPUTING, 0.0, 1),
        (FINISHING, 0.5, 0),
    ):
        watch.switch_to(doing)
        time.sleep(host_seconds)
        for _ in range(products):
            matrix @ matrix
    torch.cuda.synchronize()
    data, compute, allreduce = watch.read()
    assert 0.19 < data < 0.5
    assert compute > 0.05  # 40 products of 1.1e12 operations each
    assert allreduce == 0


def test_a_profile_has_the_gpus_kernels_and_the_stopwatchs_parts(tiny_data, tmp_path):
    options = ("--data", tiny_data, *TINY, "--output", tmp_path, "--profile", "2-3")
    ended = train(*options)
    assert ended.code == 0, ended.output
    with gzip.open(tmp_path / "profile/steps-2-3/rank-0.json.gz") as file:
        events = json.load(file)["traceEvents"]
    assert any(event.get("cat") == "kernel" for event in events)
    assert {"data", "compute", "allreduce"} <= {event["name"] for event in events}


def test_the_pipeline_is_measured_on_the_gpu(tmp_path):
    """Every stage and way; ``python -m dali_pipeline.benchmark`` gives the figures."""
    figures, names = tmp_path / "figures.json", {"decode", "augment", "full"}
    on_gpu = {"full_gpu", "full_hardware"}
    options = ("--images", "64", "--batch", "16", "--rounds", "1", "--seconds", "0.5")
    rows = ("--only", ",".join(names | on_gpu), "--device", "cuda", "--json", str(figures))
    ended = launch(["-m", "dali_pipeline.benchmark", *options, *rows], by="python", timeout=400)
    assert ended.code == 0, ended.output
    found = json.loads(figures.read_text())
    assert set(found["images_per_second"]) == names | on_gpu - set(found["skipped"])
    assert "is the quickest: cpu feeds" in ended.output


def test_the_gpu_benchmark_measures_every_case(tmp_path):
    figures = tmp_path / "figures.json"
    options = ("--quick", "--json", str(figures), "--plot", str(tmp_path / "figures.png"))
    ended = launch(["-m", "benchmarks.gpu", *options], by="python", timeout=COMPILES)
    found = json.loads(figures.read_text())
    # A decoder that crashes on this card is told, and no fault of the benchmark.
    assert all("decode" in case for case in found["left_out"]), ended.output
    assert ended.code == bool(found["left_out"]), ended.output
    assert found["cases"]["bf16, n = 32"]["memory"] > 0
    assert found["cases"]["bf16, n = 32"]["sm_mhz"] > 0
    assert found["planner"]["images_per_step"] == 32
