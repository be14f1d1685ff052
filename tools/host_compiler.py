"""Is the C++ compiler one that this nvcc works with? nvcc refuses a newer GCC, deep in a build."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

ANYWAY = "-allow-unsupported-compiler"


def compiler(environment: Mapping[str, str]) -> list[str]:
    """Return the C++ compiler as CMake chooses it: ``CXX``, else the first on the PATH.

    Horovod's CMakeLists.txt has nvcc use it too, whatever CUDAHOSTCXX and NVCC_CCBIN say.
    """
    if named := shlex.split(environment.get("CXX", "")):
        return named
    path = environment.get("PATH", os.defpath)
    return [next((name for name in ("c++", "g++") if shutil.which(name, path=path)), "c++")]


def gcc_version(command: list[str]) -> int | None:
    """Return the major version of a GCC; None for another compiler, or one that does not run."""
    try:
        answer = subprocess.run(
            [*command, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True
        ).stdout
    except OSError:
        return None
    found = re.search(r"^#define __GNUC__ (\d+)", answer, re.M)
    return int(found[1]) if found and "__clang__" not in answer else None


def newest_gcc(toolkit: Path) -> int | None:
    """Return the newest GCC that a toolkit's nvcc works with, as its own header says it.

    NVIDIA's table: https://docs.nvidia.com/cuda/cuda-installation-guide-linux, "Host Compiler
    Support Policy". None where the header does not tell.
    """
    try:
        text = (toolkit / "include/crt/host_config.h").read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r"^\s*#\s*if\s+__GNUC__\s*>\s*(\d+)", text, re.M)
    return int(found[1]) if found else None


def too_new(toolkit: Path, environment: Mapping[str, str]) -> str | None:
    """Return why nvcc would refuse the compiler, and what to do; None where it would not."""
    flags = (environment.get(f"NVCC_{place}_FLAGS", "") for place in ("PREPEND", "APPEND"))
    newest = newest_gcc(toolkit)
    if newest is None or any(ANYWAY in text for text in flags):
        return None
    command = compiler(environment)
    version = gcc_version(command)
    if version is None or version <= newest:
        return None
    return (
        f"{shlex.join(command)} is GCC {version}, but {toolkit}/bin/nvcc works with GCC {newest} "
        f"at most: install GCC {newest} and set CXX=g++-{newest}, "
        f"or try NVCC_APPEND_FLAGS={ANYWAY}"
    )
