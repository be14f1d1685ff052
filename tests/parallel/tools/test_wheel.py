"""The two wheels of ``make wheel`` train in an environment of their own, outside the checkout."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
from support.launching import REPOSITORY

import hvd_utils.commands

pytestmark = pytest.mark.long

NOT_OF_THE_CODE = (".git", ".venv", ".setup", "runs", "data", "build", "dist", "*_cache")


def run(*command: object, **options) -> str:
    ended = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=300, **options
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}"
    return ended.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A virtual environment with both wheels; all else comes from the one that runs this."""
    folder = tmp_path_factory.mktemp("wheels")
    shutil.copytree(
        REPOSITORY,
        folder / "source",
        symlinks=True,
        ignore=shutil.ignore_patterns(*NOT_OF_THE_CODE),
    )
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    only = ("--no-deps", "--no-build-isolation", "-w", folder)
    run(*pip, "wheel", "-q", *only, folder / "source")
    horovod = [sys.executable, "tools/install_horovod.py", "--log", ".setup/horovod.log"]
    run(*horovod, "--wheel", folder, cwd=REPOSITORY)
    made = folder / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", made)
    run(*pip, "--python", made, "install", "-q", "--no-deps", *folder.glob("*.whl"))
    (site,) = made.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    return made


def test_the_wheels_tell_what_they_are_for_and_that_they_have_types(environment):
    """Horovod's version names torch, CUDA and MPI; each command exists."""
    (horovod,) = environment.parent.glob("horovod-*.whl")
    built = re.search(r"\+torch(.+)\.(cpu|cu\d+)\.(?:openmpi|mpich)[\d.]+-", horovod.name)
    assert built, horovod.name
    assert built[1] == torch.__version__.partition("+")[0]
    (ours,) = environment.parent.glob("imagenet_in_1_hour-*.whl")
    names = zipfile.ZipFile(ours).namelist()
    assert {"hvd_utils/py.typed", "dali_pipeline/py.typed"} <= set(names)
    (site,) = environment.glob("lib/python*/site-packages")
    (there,) = importlib.metadata.distributions(name="imagenet-in-1-hour", path=[str(site)])
    commands = {entry.name: entry.value for entry in there.entry_points}
    expected = [
        name for name, made in vars(hvd_utils.commands).items() if isinstance(made, partial)
    ]
    assert commands == {f"imagenet-{name}": f"hvd_utils.commands:{name}" for name in expected}
    for name in expected:
        module = getattr(hvd_utils.commands, name).args[0]
        assert importlib.util.find_spec(module), module


def test_both_wheels_train_outside_the_checkout(environment, tmp_path):
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "IMAGENET_DIR")}
    variables |= {
        "PATH": f"{environment}/bin:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    options = {"cwd": tmp_path, "env": variables}
    found = run(
        environment / "bin/python",
        "-c",
        "import horovod, hvd_utils, train_imagenet as t\n"
        "print(horovod.__file__, hvd_utils.__file__, t.__file__)",
        **options,
    )
    assert all(path.startswith(str(environment)) for path in found.split()), found
    told = run("horovodrun", "-np", 2, "imagenet-train", "--max-steps", 3, "--output", "run",
               **options)  # fmt: skip
    assert "embedded handwritten digits" in told
    assert (tmp_path / "cache/imagenet-in-1-hour/digits").is_dir()
    assert "step 3 of" in run("imagenet-status", "run", **options)
    assert "paper" in run("imagenet-train", "--help", **options)
    known = subprocess.run(["imagenet-train", "--recipe", "none"], capture_output=True, **options)
    assert b"give one of demo, finetune, lars-32k" in known.stderr, known.stderr
