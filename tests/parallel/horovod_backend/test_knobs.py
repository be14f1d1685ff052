"""Horovod's knobs do not change the trajectory, in buckets not a bit of it; its benchmarks."""

from __future__ import annotations

import json

import pytest
import yaml
from support.launching import PROGRAMS, launch

from hvd_utils.inspect.compare import differences, newest

pytestmark = pytest.mark.long

PROGRAM = str(PROGRAMS / "knobs.py")
FP64 = "--precision fp64"
QUICK_TUNING = {
    "HOROVOD_AUTOTUNE_WARMUP_SAMPLES": "1",
    "HOROVOD_AUTOTUNE_STEPS_PER_SAMPLE": "1",
}


@pytest.fixture(scope="module")
def ends(jpegs, tmp_path_factory) -> dict[str, dict]:
    """The last checkpoints of all variants, on three ranks, by name."""
    output = tmp_path_factory.mktemp("knobs")
    recipe = output / "tuned.yaml"

    def run(*variants: str, **environment: str) -> None:
        command = [PROGRAM, str(jpegs), str(output), *variants]
        ended = launch(command, ranks=3, **environment)
        assert ended.code == 0, ended.output

    run(
        f"buckets={FP64} --bucket-mb 0.02",
        f"one-bucket={FP64} --bucket-mb 8",
        "single=--bucket-mb 0.02",
        "half=--bucket-mb 0.02 --compression fp16",
        "brain=--bucket-mb 0.02 --compression bf16",
    )
    other = "--cycle-ms 3 --nccl-streams 2 --allreduce torus"
    run(f"single-again=--bucket-mb 0.02 {other}", f"knobs={FP64} --bucket-mb 0.02 {other}")
    run(f"tuning={FP64} --autotune {recipe}", **QUICK_TUNING)
    found = {run.name: newest(run) for run in output.iterdir() if run.is_dir()}
    return found | {"recipe": yaml.safe_load(recipe.read_text())}


@pytest.mark.parametrize("name", ["one-bucket", "knobs", "tuning"])
def test_no_knob_changes_the_trajectory(ends, name):
    assert max(differences(ends[name], ends["buckets"]).values()) < 1e-10


def test_in_buckets_two_launches_of_three_ranks_are_equal_to_the_bit(ends):
    """In float32, though they look for gradients at other intervals."""
    assert set(differences(ends["single-again"], ends["single"]).values()) == {0.0}


@pytest.mark.parametrize(("name", "most"), [("half", 1e-2), ("brain", 1e-1)])
def test_compressed_gradients_differ_by_their_rounding_and_no_more(ends, name, most):
    apart = differences(ends[name], ends["single"])
    assert most / 1e4 < apart["weights"] < most


def test_the_autotuner_leaves_a_recipe(ends):
    assert set(ends["recipe"]) == {"bucket_mb", "fusion_mb", "cycle_ms", "allreduce"}
    assert 0 <= ends["recipe"]["fusion_mb"] <= 64
    assert 1 <= ends["recipe"]["cycle_ms"] <= 100


def test_the_benchmark_of_sums_runs(tmp_path):
    files = {kind: tmp_path / kind for kind in ("json", "plot")}
    command = ["-m", "benchmarks.allreduce", "--quick", "--json", str(files["json"])]
    command += ["--plot", str(files["plot"].with_suffix(".png"))]
    ended = launch(command, by="python")
    assert ended.code == 0, ended.output
    found = json.loads(files["json"].read_text())
    assert found["ranks"]["2"]["seconds"].keys() >= {"copy", "mpi_flat", "horovod"}
    assert all(value > 0 for value in found["ranks"]["2"]["seconds"].values())
    assert found["figures"]["horovod_vs_mpi_2"] > 0.01
    assert found["figures"]["hidden_in_memory"] < 10
    assert found["figures"]["hidden"] is None
    assert "target 0.9: " in ended.output
    assert files["plot"].with_suffix(".png").stat().st_size > 1000
