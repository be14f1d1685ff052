"""What the GPU benchmark makes of its measurements; measuring itself is for a GPU."""

import argparse
import time
from types import SimpleNamespace

import torch
from support.launch_scripts import stand_in

from benchmarks import gpu
from benchmarks.harness import card, gpu_case
from benchmarks.harness.card import peak, training_flops
from benchmarks.harness.gpu_cases import Case, cases, planner, ratios
from benchmarks.harness.processes import Failed
from hvd_utils.config.settings import Settings

MODES = ["default", "cudagraphs"]


def measured(seconds):
    """Cases of n = 32 and 8 workers, each with one round of ``seconds(case)``."""
    found = cases(32, 8, ["bf16", "tf32"], MODES, ways=False)
    for case in found:
        case.seconds = [seconds(case)]
        case.facts["backward_share"] = 0.6
    return found


def test_what_tells_most_comes_first():
    """Eight minutes hold a dozen cases; CUDA graphs are the quickest, compiled cold in a minute."""
    found = cases(32, 8, ["bf16", "fp16", "tf32"], MODES)
    assert [case.name for case in found] == [
        "bf16, n = 256",
        "bf16, n = 32 x 8",
        "bf16, n = 256, CUDA graphs",
        "bf16, n = 32 x 8, CUDA graphs",
        "bf16, n = 256, CUDA graphs, JPEGs, decode cpu",
        "bf16, n = 256, JPEGs, decode cpu",
        "bf16, n = 256, CUDA graphs, JPEGs, decode gpu",
        "bf16, n = 256, CUDA graphs, JPEGs, decode hardware",
        "bf16, n = 256, batch norm triton",
        "bf16, n = 32 x 8, batch norm torch",
        "bf16, n = 256, CUDA graphs, batch norm torch",
        "bf16, n = 256, CUDA graphs, pad stem on",
        "fp16, n = 256",
        "fp16, n = 256, CUDA graphs",
        "tf32, n = 256",
        "tf32, n = 256, CUDA graphs",
        "bf16, n = 256, compiled",
        "bf16, n = 32 x 8, compiled",
    ]


def test_without_a_gpu_or_a_compiler_there_are_fewer():
    assert [case.name for case in cases(4, 8, ["bf16", "fp32"], [], ways=False)] == [
        "bf16, n = 32",
        "bf16, n = 4 x 8",
        "bf16, n = 32, JPEGs",
        "fp32, n = 32",
    ]
    assert not [case for case in cases(4, 8, ["bf16"], MODES, jpegs=False) if case.loader == "dali"]


def test_what_no_time_is_left_for_is_told_and_kept(tmp_path, monkeypatch):
    """A case that fails by itself has its own reason."""
    found = cases(32, 8, ["bf16"], [], ways=False, jpegs=False)
    options = argparse.Namespace(minutes=0, case_minutes=3)
    kept = []
    gpu.measure(found, options, tmp_path, lambda: kept.append(1))
    assert [case.why_not for case in found] == [gpu.NO_TIME] * 2
    assert len(kept) == 2

    def finish(command, timeout):
        raise Failed("it hung", timed_out=True)

    monkeypatch.setattr(gpu, "finish", finish)
    options = argparse.Namespace(
        minutes=8, case_minutes=3, model="resnet8", resolution=32, device="cpu", steps=1, rounds=1
    )
    gpu.measure(found[:1], options, tmp_path)
    assert found[0].why_not == "it hung"
    options.minutes = 2
    gpu.measure(found[1:], options, tmp_path)
    assert found[1].why_not == gpu.NO_TIME


def test_cuda_graphs_that_were_given_up_and_the_clock_are_told(monkeypatch):
    monkeypatch.setattr(gpu_case, "Loop", FakeLoop)
    monkeypatch.setattr(gpu_case, "skipped_graphs", lambda: 3)
    clock = {"sm_mhz": 1755, "watts": 690.5}
    monkeypatch.setattr(card.Watch, "facts", lambda watch: clock)
    world = SimpleNamespace(device=torch.device("cpu"))
    told = {}
    for mode in ("none", "cudagraphs"):
        case = Case(32, 8, "bf16", mode)
        settings = Settings.model_validate({"recipe": "benchmark", **case.settings()})
        measured = gpu_case.measure(settings, world, None, steps=1, rounds=2, began=0)
        case.seconds, case.facts = measured["seconds"], measured["facts"]
        assert case.facts | clock == case.facts
        told[mode] = gpu._row(case)
    assert "3 CUDA graphs were given up" in told["cudagraphs"]
    assert "given up" not in told["none"]
    assert "1755 MHz   690 W" in told["none"]


class FakeLoop:
    """A loop whose steps take no time."""

    def __init__(self, *_):
        self.steps = 0

    def run(self, steps):
        self.steps += steps

    def forward_and_backward(self, times):
        return 1, 2

    def split(self):
        return {"data": self.steps, "compute": 3 * self.steps}


def test_every_case_is_settings_of_the_job():
    for case in cases(32, 8, ["bf16", "fp16", "tf32"], MODES):
        settings = Settings.model_validate({"recipe": "benchmark", **case.settings()})
        assert settings.minibatch == 256


def test_ratios_are_of_the_quickest_way_to_compute_each():
    quickest = {
        ("none", 1): 0.064, ("cudagraphs", 1): 0.05, ("none", 8): 0.08, ("cudagraphs", 8): 0.0625
    }  # fmt: skip
    found = measured(
        lambda case: quickest.get((case.compile, case.workers), 0.1) * (1 + (case.loader == "dali"))
    )
    figures = ratios(found)
    assert figures["bf16_images_per_second"] == 256 / 0.05
    assert figures["fused_vs_whole"] == 0.8
    assert figures["jpegs_vs_made_up"] == 0.5
    assert figures["bf16, n = 256, CUDA graphs vs not"] == 0.064 / 0.05
    assert planner(found, "resnet50") == {
        "model": "resnet50",
        "seconds_per_step": 0.0625,
        "images_per_step": 256,
        "backward_share": 0.6,
    }


def test_what_was_not_measured_is_not_made_up():
    found = measured(lambda case: 0.1)
    only = [case for case in found if case.name in ("bf16, n = 256", "tf32, n = 256")]
    assert ratios(only) == {"bf16_images_per_second": 2560.0, "tf32_images_per_second": 2560.0}
    jpegs = [case for case in found if case.loader == "dali"]
    assert set(ratios(jpegs)) == {"bf16, n = 256, CUDA graphs, JPEGs vs not"}  # others crashed
    assert planner(jpegs, "resnet50") is None


def test_resnet50_takes_24_gflop_an_image():
    """He et al. 2015, Table 1: 3.8 billion products forward; with the stride in the 3x3, 4.1."""
    assert 24e9 < training_flops("resnet50", 1000, 224) < 25e9
    assert peak(torch.device("cpu"), "fp32") is None


SMI = """#!/bin/sh
echo "1700, 650.5, 60"
echo "[N/A], 1, 1"
echo "1980, 690.5, 61"
echo "1755, 698.0, 62"
exec sleep 60
"""


def test_clock_and_power_of_the_card_are_read_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", stand_in(tmp_path, "nvidia-smi", SMI))
    monkeypatch.setattr(card, "card_name", lambda device: "GPU-aa")
    with card.Watch(torch.device("cuda")) as watch:
        time.sleep(1)
    assert watch.facts() == {"sm_mhz": 1755, "watts": 690.5, "celsius": 61}


def test_without_nvidia_smi_or_gpu_nothing_is_known(monkeypatch):
    with card.Watch(torch.device("cpu")) as watch:
        pass
    assert watch.facts() == {}
