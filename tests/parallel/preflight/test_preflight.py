"""The preflight on real ranks: whole, with a rank that hangs, and with ranks unlike the others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.images import write_jpegs
from support.launching import PROGRAMS, REPOSITORY, launch

pytestmark = pytest.mark.long

PREFLIGHT = ["-m", "hvd_utils.preflight"]
DOCTORED = str(PROGRAMS / "doctored.py")
MANY = {
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PYTHONPATH": str(REPOSITORY),
}


def by_check(report: dict) -> dict[str, dict]:
    return {check["check"]: check for check in report["checks"]}


def test_a_healthy_pair_passes_every_check(tmp_path):
    command = [DOCTORED, "healthy", "--data", "digits", "--recipe", "demo", "--quick"]
    command += ["--time-limit", "250"]
    command += ["--output", str(tmp_path / "run"), "--json", str(tmp_path / "report.json")]
    done = launch(command, ranks=2, **MANY)
    assert done.code == 0, done.output
    assert done.output.count("preflight of 2 ranks") == 1
    report = json.loads((tmp_path / "report.json").read_text())
    checks = by_check(report)
    assert not [c for c in report["checks"] if c["verdict"] == "fail"]
    measured = ("versions", "code", "Horovod", "data", "decoding", "training alone", "input alone")
    for name in (*measured, "allreduce, all ranks", "estimate", "output", "ranks"):
        assert checks[name]["verdict"] in ("ok", "warn"), checks[name]
        assert name in done.output
    assert report["figures"]["data"]["images"] == 1437
    assert set(report["figures"]["training"]) == {"0", "1"}
    assert report["figures"]["estimate"]["steps"] == 674
    assert not list((tmp_path / "run").iterdir())  # the token is gone


def test_a_stopped_rank_is_named_and_the_others_report(tmp_path):
    command = [DOCTORED, "stopped", "--data", "digits", "--quick", "--time-limit", "30"]
    command += ["--only", "software,node,allreduce", "--json", str(tmp_path / "report.json")]
    done = launch(command, ranks=3, by="mpirun", **MANY)
    assert done.code == 1, done.output  # a machine's fault: to be started again
    report = json.loads((tmp_path / "report.json").read_text())
    checks = by_check(report)
    assert list(report["silent"]) == ["1"]
    assert "no answer from rank 1 (" in checks["ranks"]["seen"]
    assert "no answer from rank 1 (" in done.output
    assert checks["versions"]["verdict"] == "ok"
    assert "2 ranks" in checks["allreduce, all ranks"]["seen"]  # the sum of those that are left


@pytest.fixture
def broken_data(tiny_data, tmp_path) -> Path:
    """The tiny data with a file that is no image."""
    folder = shutil.copytree(tiny_data, tmp_path / "broken")
    (folder / "train" / "bee" / "003.JPEG").write_bytes(b"not an image")
    return folder


def test_ranks_unlike_the_others_are_named(tiny_data, broken_data, tmp_path):
    write_jpegs(broken_data / "train", {"dog": 2})
    write_jpegs(broken_data / "val", {"dog": 2})
    command = [DOCTORED, "odd", "--data", str(tiny_data), "--recipe", "demo", "--quick"]
    command += ["--time-limit", "250", "--only", "software,data,clock,allreduce"]
    command += ["--json", str(tmp_path / "report.json")]
    variables = {**MANY, "OTHER_DATA": str(broken_data)}
    done = launch(command, ranks=4, by="mpirun", **variables)
    print(done.output)
    assert done.code == 2, done.output
    checks = by_check(json.loads((tmp_path / "report.json").read_text()))
    for name in ("versions", "code", "data", "decoding", "clocks"):
        assert checks[name]["verdict"] == "fail", (name, done.output)
        assert checks[name]["remedy"]
    assert "numpy" in checks["versions"]["seen"]
    assert "1.0 on rank 3 (node1)" in checks["versions"]["seen"]
    assert "rank 3 (node1)" in checks["code"]["seen"]
    assert "rank 2 (node1)" in checks["data"]["seen"]
    assert f"{broken_data}/train/bee/003.JPEG (not an image)" in checks["decoding"]["seen"]
    assert "node1 is 3600" in checks["clocks"]["seen"]
    assert checks["slowest rank"]["verdict"] == "warn"
    assert "rank 3 (node1)" in checks["slowest rank"]["seen"]
    assert checks["allreduce, in a node"]["verdict"] == "ok"


def test_with_gpus_the_sums_on_them_are_judged_and_mpis_only_warn(tmp_path):
    """Two nodes whose link is said to be a thousand times quicker than what either reaches."""
    command = [DOCTORED, "gpus", "--data", "digits", "--device", "cpu", "--only", "allreduce"]
    command += ["--quick", "--time-limit", "250", "--expected-gbit", "1000000"]
    command += ["--json", str(tmp_path / "report.json")]
    done = launch(command, ranks=2, by="mpirun", **MANY)
    report = json.loads((tmp_path / "report.json").read_text())
    checks = by_check(report)
    assert checks["links"]["verdict"] == "warn", done.output
    assert checks["NCCL between nodes"]["verdict"] == "fail", done.output
    assert "NCCL_IB_HCA" in checks["NCCL between nodes"]["remedy"]
    assert report["figures"]["nccl"]["ranks"] == 2
    assert done.code == 1


def test_gloo_is_refused_in_one_line():
    done = launch([*PREFLIGHT, "--data", "digits"], ranks=2, by="gloo", **MANY)
    assert done.code != 0
    assert done.output.count("horovodrun without --gloo") == 1, done.output
    assert "preflight of" not in done.output


def test_bad_options_end_one_process_with_one_line():
    done = launch([*PREFLIGHT, "--only", "nodes"], by="python", **MANY)
    assert (done.code, done.output.count("\n")) == (2, 1), done.output
    assert "no check nodes" in done.output
