"""What the set-up cannot use is one line before anything is downloaded or made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.launching import REPOSITORY

REAL = f"{os.path.realpath(sys.executable)} -S"  # starts in half the time
NEEDED = ("bash", "env", "dirname", "cat", "cut", "sha256sum", "sed", "grep")  # no further
OPEN_MPI = "mpirun (Open MPI) {}\n\nReport bugs to https://www.open-mpi.org/community/help/"
MPICH = "HYDRA build details:\n    Version:                                 {}\n    Release Date: x"
PYTHONS = {
    "import sys; sys.version_info = (3, 9, 18)": "is older than 3.10: name a newer one",
    "import sys; sys.version_info = (3, 15, 0)": "is newer than 3.14, the last with wheels",
    "import sysconfig; sysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1": "without the interpre",
    "import sys; sys.modules['venv'] = None": "has no venv module: install it",
    "import sysconfig; sysconfig.get_path = lambda name: '/none'": "no /none/Python.h: install Py",
}


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def refused(tmp_path) -> Callable[..., str]:
    """Runs the set-up in a copy of the scripts; returns its only line.

    The programs it finds are in ``tmp_path/bin``, a g++ and a make that suit it among them.
    """
    for name in ("tools", "patches"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    for path in (REPOSITORY / "setup.cfg", *REPOSITORY.glob("constraints*.txt")):
        shutil.copy(path, tmp_path)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in NEEDED:
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    program(tools / "g++", "echo 12.2.0")
    program(tools / "make", "exit 1")
    program(tools / "python", f'exec {REAL} "$@"')

    def run(**variables: str) -> str:
        ended = subprocess.run(
            [tmp_path / "tools/setup.sh"],
            capture_output=True,
            text=True,
            timeout=300,
            env={"PATH": str(tools), "PYTHON": "python", "HOROVOD_WITHOUT_GPU": "1"} | variables,
        )
        assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
        assert ended.stderr.count("\n") == 1, ended.stderr
        assert not (tmp_path / ".venv").exists()
        assert not (tmp_path / ".setup").exists()
        return ended.stderr

    return run


def mpi(tools: Path, answer: str) -> None:
    program(tools / "mpirun", f"cat <<'END'\n{answer}\nEND")
    program(tools / "mpicxx", "exit 1")


@pytest.mark.parametrize(
    ("missing", "words"), [("g++", "no C++ compiler: install one"), ("make", "no make: install")]
)
def test_a_missing_tool(tmp_path, refused, missing, words):
    (tmp_path / "bin" / missing).unlink()
    assert refused().startswith(f"setup: {words}")


def test_an_old_compiler(tmp_path, refused):
    program(tmp_path / "bin/g++", "echo 10.2.1")
    assert refused().startswith("setup: g++ is version 10.2.1, but PyTorch's headers need C++20")
    program(tmp_path / "bin/g++-12", "echo 12.2.0")
    (tmp_path / "bin/make").unlink()  # the next that is looked for
    assert refused(CXX="g++-12").startswith("setup: no make")
    program(tmp_path / "bin/ccache", 'exec "$@"')
    assert refused(CXX="g++-12 -m64").startswith("setup: no make")
    assert refused(CXX="ccache g++-12 -m64").startswith("setup: no make")


@pytest.mark.parametrize(("change", "words"), PYTHONS.items())
def test_a_python_that_cannot_be_used(tmp_path, refused, change, words):
    """The real one, which tells what it does not have."""
    text = f'[ "$1" = -c ] && exec {REAL} -c "{change}\n$2"\nexec {REAL} "$@"'
    program(tmp_path / "bin/python", text)
    assert words in refused()


def test_a_compiler_that_nvcc_refuses(tmp_path, refused):
    """A made-up toolkit of CUDA 13, whose header tells as NVIDIA's does."""
    program(tmp_path / "bin/g++", '[ "$1" = -dM ] && echo "#define __GNUC__ 16" || echo 16')
    nvcc = tmp_path / "cuda/bin/nvcc"
    header = tmp_path / "cuda/include/crt/host_config.h"
    for folder in (nvcc.parent, header.parent):
        folder.mkdir(parents=True)
    program(nvcc, "echo release 13.0, V13.0.48")
    header.write_text("#if __GNUC__ > 15\n\n#error no\n")
    (tmp_path / "cuda/include/cuda_runtime.h").touch()
    gpu = {"CUDA_HOME": str(tmp_path / "cuda"), "HOROVOD_WITHOUT_GPU": "", "CUDA": "13"}
    line = refused(**gpu)
    assert line.startswith(f"setup: g++ is GCC 16, but {nvcc} works with GCC 15 at most: install")
    assert "CXX=g++-15" in line


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (OPEN_MPI.format("3.1.3"), "has Open MPI 3: load 4 or newer"),
        (MPICH.format("3.0.4"), "has MPICH 3.0: load 3.1 or newer"),
    ],
)
def test_an_old_mpi(tmp_path, refused, answer, words):
    mpi(tmp_path / "bin", answer)
    assert words in refused()


@pytest.mark.parametrize(
    "answer",
    [OPEN_MPI.format("4.1.4"), MPICH.format("3.1"), "Intel(R) MPI Library, Version 2021.9"],
)
def test_an_mpi_that_is_not_too_old_is_not_refused(tmp_path, refused, answer):
    mpi(tmp_path / "bin", answer)
    (tmp_path / "bin/make").unlink()  # the next that is looked for
    assert refused().startswith("setup: no make")
