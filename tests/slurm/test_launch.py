"""The launch scripts on a real Slurm: who runs where, and how a job lives on or ends."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
from helpers import REPOSITORY, TINY, launch
from jobs import Job
from places import IMAGES, SEED, N

from dali_pipeline.order import permutation
from hvd_utils.compare import newest

SCRIPTS = sorted((REPOSITORY / "slurm").glob("*.sh"))
STEPS = 24
DOUBLE = (*TINY, "--precision", "fp64", "--workers", "4", "--max-steps", STEPS, "--epochs", "99")


def test_256_ranks_on_32_nodes_have_their_places_and_split_an_epoch(cluster, tiny_data, tmp_path):
    """The script as it stands, for 256 ranks that need neither GPUs nor MPI's own traffic."""
    job = Job(cluster, tmp_path / "run", JOB="tests/slurm/places.py", DATA=str(tiny_data))
    assert job.finish() == "COMPLETED", job.console
    files = sorted((tmp_path / "run" / "logs").glob("*/node*.rank-*.log"))
    places = [json.loads(file.read_text()) for file in files]
    assert '[1,255]<stdout>: {"rank": 255, "node": "node32"' in job.console
    assert sorted(place["rank"] for place in places) == [*range(256)]
    spots = {(place["node"], place["local_rank"]) for place in places}
    assert spots == {(node, local) for node in cluster.names() for local in range(8)}
    assert all(place["gpu"] == place["local_rank"] for place in places)
    parts = [np.load(tmp_path / "run" / f"rank-{rank}.npy") for rank in range(256)]
    ids = np.stack(parts, axis=1).ravel()  # by step, then rank
    assert np.array_equal(ids, permutation(SEED, 0, IMAGES)[: len(ids)])
    assert IMAGES - len(ids) < 256 * N


@pytest.mark.parametrize(
    ("variables", "arguments", "said"),
    [
        ({"DATA": ""}, (), "no data set: set DATA"),
        ({"DATA": "digits"}, ("--epochs", "-1"), "--epochs -1"),
    ],
)
def test_a_broken_setting_fails_once(cluster, tmp_path, variables, arguments, said):
    job = Job(
        cluster, tmp_path / "run", "--nodes=2", "--ntasks-per-node=1",
        arguments=arguments, IMAGENET_DIR="", **variables,
    )  # fmt: skip
    assert job.finish() == "FAILED", job.console
    assert (job.fact("ExitCode"), job.fact("Restarts")) == ("2:0", "0")
    assert said in job.console


def test_mpirun_with_a_host_file_trains(tiny_data, tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("localhost slots=2\n")
    run = tmp_path / "run"
    program = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    script = REPOSITORY / "slurm" / "mpirun_hosts.sh"
    ended = launch(
        ["-c", program, str(script), str(hosts), *TINY, "--max-steps", "3"],
        by="python", PREFLIGHT="0", DATA=str(tiny_data), OUTPUT=str(run),
        PYTHONPATH=str(REPOSITORY), OMPI_MCA_mpi_yield_when_idle="1",
    )  # fmt: skip
    assert ended.code == 0, ended.output
    assert newest(run)["step"] == 3


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck(script):
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck here: run tools/install_test_packages.sh")
    done = subprocess.run(
        ["shellcheck", "-x", script.relative_to(REPOSITORY)],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
