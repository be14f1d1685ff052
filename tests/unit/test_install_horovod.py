"""What the build of Horovod says, with stand-ins for the build itself."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import build_each_patch
import cuda_toolkit
import install_horovod as installer
import pytest


@pytest.fixture
def build(monkeypatch, tmp_path, capsys):
    """Runs the installer where the toolkit, or why there is none, is as given."""
    torch = SimpleNamespace(version=SimpleNamespace(cuda="13.2"))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(sys, "argv", ["install_horovod", "--log", str(tmp_path / "log")])
    monkeypatch.setattr(installer.sysconfig, "get_path", lambda name: str(tmp_path))
    settings = {"HOROVOD_NCCL_INCLUDE": "/nccl"}
    for name, value in {
        "mpi_compiler": tmp_path / "mpicxx",
        "build_settings": settings,
        "build_key": settings,
        "build_wheel": tmp_path / "a.whl",
        "run": "",
        "prove": None,
    }.items():
        monkeypatch.setattr(installer, name, lambda *_, value=value: value)

    def run(toolkit):
        monkeypatch.setattr(cuda_toolkit, "find_or_bring", lambda *_: toolkit)
        installer.main()
        return capsys.readouterr()

    return run


def test_a_build_without_nccl_says_so_loudly_why_and_what_to_do(build):
    (line,) = build("no NVIDIA GPU, and no toolkit of CUDA 13.2").err.splitlines()
    assert line.startswith("\033[1mwarning: Horovod is built WITHOUT NCCL (no NVIDIA GPU, and no ")
    assert "CUDA=13 make setup (CUDA=12 for drivers before 580)" in line
    assert line.endswith("\033[0m")


def test_a_build_with_nccl_names_the_toolkit_and_warns_of_nothing(build, tmp_path):
    printed = build(tmp_path)
    assert (printed.err, f"CUDA: {tmp_path}; NCCL: /nccl" in printed.out) == ("", True)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "ok\nCMake Error at a.cmake:290 (message):\n\n  Could NOT find X\n",
            "CMake Error: Could",
        ),
        ("c++ -Wno-error a.cc\na.h:3:1: error: no type\ngmake: *** a\n", "a.h:3:1: error: no type"),
        ("Killed\n", "Killed"),
        ("", "no output"),
    ],
)
def test_the_first_error_of_a_build_is_found(text, line):
    assert build_each_patch.first_error(text).startswith(line)
