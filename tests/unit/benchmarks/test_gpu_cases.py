"""What the GPU benchmark makes of its measurements; measuring itself is for a GPU."""

import torch

from benchmarks.harness.card import peak, training_flops
from benchmarks.harness.gpu_cases import cases, planner, ratios


def measured(seconds):
    """Cases of n = 32 and 8 workers, each with one round of ``seconds(case)``."""
    found = cases(32, 8, ["bf16", "tf32"], ["default", "cudagraphs"])
    for case in found:
        case.seconds = [seconds(case)]
        case.facts["backward_share"] = 0.6
    return found


def test_every_combination_is_measured_once():
    found = cases(32, 8, ["bf16", "tf32"], ["default", "cudagraphs"])
    names = [case.name for case in found]
    assert len(set(names)) == len(names)
    assert {"bf16, n = 256", "tf32, n = 32 x 8", "bf16, n = 256, compiled"} < set(names)
    assert {"bf16, n = 256, JPEGs", "bf16, n = 256, compiled, JPEGs"} < set(names)


def test_ratios_are_of_the_quickest_way_to_compute_each():
    quickest = {("none", 1): 0.064, ("default", 1): 0.05, ("none", 8): 0.08, ("default", 8): 0.0625}
    found = measured(
        lambda case: quickest.get((case.compile, case.workers), 0.1) * (1 + (case.loader == "dali"))
    )
    figures = ratios(found)
    assert figures["bf16_images_per_second"] == 256 / 0.05
    assert figures["fused_vs_whole"] == 0.8
    assert figures["jpegs_vs_made_up"] == 0.5
    assert figures["bf16, n = 256, compiled vs not"] == 0.064 / 0.05
    assert planner(found, "resnet50") == {
        "model": "resnet50",
        "seconds_per_step": 0.0625,
        "images_per_step": 256,
        "backward_share": 0.6,
    }


def test_what_time_did_not_allow_is_not_made_up():
    found = measured(lambda case: 0.1)[:2]  # n = 256 in both precisions
    assert ratios(found) == {"bf16_images_per_second": 2560.0, "tf32_images_per_second": 2560.0}


def test_resnet50_takes_24_gflop_an_image():
    """He et al. 2015, Table 1: 3.8 billion products forward; with the stride in the 3x3, 4.1."""
    assert 24e9 < training_flops("resnet50", 1000, 224) < 25e9
    assert peak(torch.device("cpu"), "fp32") is None
