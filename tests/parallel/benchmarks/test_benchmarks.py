"""The benchmarks of whole jobs run from start to end, and their figures are possible."""

import json

import pytest
from support.launching import REPOSITORY, launch

pytestmark = pytest.mark.long


@pytest.fixture
def measured(tmp_path):
    """A function that runs a benchmark with --quick and returns what it wrote to its JSON."""

    def run(name: str, *arguments: object) -> dict:
        file, picture = tmp_path / "figures.json", tmp_path / "figures.png"
        command = ["-m", f"benchmarks.{name}", "--quick", "--json", file, "--plot", picture]
        command += arguments
        done = launch([*map(str, command)], by="python")
        assert done.code == 0, done.output
        assert "; target " in done.output
        assert picture.stat().st_size > 0
        return json.loads(file.read_text())

    return run


def test_loop_tax(measured):
    written = measured("loop_tax")
    ours, bare = written["images_per_second"].values()
    assert written["figures"] == {"loop_tax": pytest.approx(ours / bare)}


def test_peers_read_the_same_jpegs(measured, tiny_data):
    peers = ["--data", "jpegs", "--images", tiny_data, "--only", "horovod,examples"]
    written = measured("peers", *peers)
    rates = written["images_per_second"]
    assert set(rates) == {"ours, jpegs", "horovod, jpegs", "examples, jpegs"}
    best = max(rates["horovod, jpegs"], rates["examples, jpegs"])
    assert written["figures"]["jpegs_vs_best"] == pytest.approx(rates["ours, jpegs"] / best)


def test_scaling(measured):
    written = measured("scaling")
    rates, figures = written["images_per_second"], written["figures"]
    assert figures["efficiency"] == pytest.approx(
        rates["paper's, 2 ranks"] / rates["paper's, 1 rank"] / 2
    )
    assert figures["ceiling"] > 0
    assert 0 <= figures["waiting"] < 1
    assert figures["logical_workers"] > 0


def test_a_job_that_cannot_run_is_told_with_its_last_lines():
    done = launch(["-m", "benchmarks.loop_tax", "--quick", "--device", "cuda"], by="python")
    assert done.code != 0
    assert "no CUDA device" in done.output


CRASH = """
import os, signal, sys
if any('"precision": "fp32"' in argument for argument in sys.orig_argv):
    os.kill(os.getpid(), signal.SIGSEGV)
"""


def test_the_gpu_benchmark_goes_through_all_but_the_gpu_and_outlives_a_crash(tmp_path):
    """One case of four is made to crash, as a decoder does on some cards."""
    (tmp_path / "sitecustomize.py").write_text(CRASH)
    file = tmp_path / "figures.json"
    command = ["-m", "benchmarks.gpu", "--quick", "--device", "cpu", "--json", str(file)]
    path = f"{tmp_path}:{REPOSITORY}"
    done = launch(command, by="python", quick=False, PYTHONPATH=path)
    assert done.code == 1, done.output
    assert "1 of 4 cases failed" in done.output
    written = json.loads(file.read_text())
    assert written["left_out"] == {"fp32, n = 32": "killed by SIGSEGV"}
    assert set(written["figures"]) >= {"jpegs_vs_made_up", "fused_vs_whole"}
    assert all(len(case["seconds"]) == 2 for case in written["cases"].values())
    shown = launch(["-m", "hvd_utils.scaling", "--step", str(file)], by="python")
    assert shown.code == 0, shown.output
