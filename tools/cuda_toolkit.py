"""Find a CUDA toolkit and an NCCL that fit PyTorch's, or bring the toolkit as wheels."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

import host_compiler
from step import Failure, run

ROOT = Path("/")
DRIVER = "proc/driver/nvidia/version"
LEAVE_OUT = "HOROVOD_WITHOUT_GPU=1 builds without NCCL"


def has_gpu(root: Path = ROOT) -> bool:
    """Whether this machine has NVIDIA's driver or a device of it."""
    return any((root / name).exists() for name in (DRIVER, "dev/nvidia0"))


def may_lack(environment: Mapping[str, str], root: Path = ROOT) -> str | None:
    """Return why a build may do without NCCL where no toolkit is; None where it may not.

    ``CUDA=12`` and ``CUDA=13`` ask for NCCL on a machine without a GPU too.
    """
    if environment.get("HOROVOD_WITHOUT_GPU") == "1":
        return "HOROVOD_WITHOUT_GPU=1"
    if has_gpu(root) or environment.get("CUDA"):
        return None
    return "no NVIDIA GPU"


def folders(environment: Mapping[str, str]) -> list[Path]:
    """Return where a CUDA toolkit may be, the one to prefer first."""
    nvcc = shutil.which("nvcc", path=environment.get("PATH", os.defpath))
    named = [environment.get("CUDA_HOME"), environment.get("CUDA_PATH")]
    named += [nvcc and str(Path(nvcc).resolve().parent.parent), "/usr/local/cuda"]
    return [Path(name) for name in named if name]


def find(places: Iterable[Path], cuda: str) -> Path | str:
    """Return the first toolkit of the same major version as ``cuda``, or why there is none."""
    reason = f"no toolkit of CUDA {cuda}"
    for home in places:
        # A wrapper script named nvcc may lie anywhere, so what counts is the folder's content.
        if not (home / "bin/nvcc").exists() or not (home / "include/cuda_runtime.h").exists():
            continue
        answer = subprocess.run([home / "bin/nvcc", "--version"], capture_output=True, text=True)
        version = answer.stdout.partition("release ")[2].partition(",")[0]
        if version.partition(".")[0] == cuda.partition(".")[0]:
            return home
        reason = f"no toolkit of CUDA {cuda} ({home} has {version or 'another'})"
    return reason


def wheels(cuda: str, missing: str) -> str:
    """Return what to install where a toolkit of this version is ``missing``."""
    if cuda.partition(".")[0] == "12":
        # nvidia-cuda-nvcc-cu12 has the assembler, but not nvcc.
        raise Failure(
            f"{missing}, and CUDA 12's compiler is no wheel: load your site's module of CUDA 12, "
            f"or set CUDA_HOME ({LEAVE_OUT})"
        )
    return f"cuda-toolkit[nvcc,cudart,cccl]=={cuda}.*"


def find_or_bring(cuda: str | None, work: Path, log: Path) -> Path | str:
    """Return a toolkit for PyTorch's ``cuda``, brought if need be, or why there is none."""
    reason = may_lack(os.environ)
    if os.environ.get("HOROVOD_WITHOUT_GPU") == "1":  # a toolkit is no reason to use it
        return reason
    if cuda is None:
        if reason:
            return f"{reason}, and PyTorch is a CPU build"
        raise Failure(f"PyTorch is a CPU build: install one for CUDA ({LEAVE_OUT})")
    brought = work / f"cuda-{cuda}"
    home = brought / "nvidia" / f"cu{cuda.partition('.')[0]}"
    found = find([*folders(os.environ), home], cuda)
    if isinstance(found, Path):
        refused = suit_compiler(found)
        return f"{reason}, and {refused}" if refused else found
    if reason:
        return f"{reason}, and {found}"
    requirement = wheels(cuda, found)
    print(f"{found}: bringing it as wheels, 120 MB")
    part = work / "cuda.part"  # until it is whole
    shutil.rmtree(part, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--target", str(part), requirement]
    remedy = f"cannot bring {requirement}: check the network, or set CUDA_HOME ({LEAVE_OUT})"
    run(command, log, remedy)
    complete(part / home.relative_to(brought))
    shutil.rmtree(brought, ignore_errors=True)
    part.rename(brought)
    suit_compiler(home)
    return home


def suit_compiler(toolkit: Path) -> str | None:
    """Return why nvcc would refuse the compiler, if so; raise Failure where NCCL is wanted."""
    refused = host_compiler.too_new(toolkit, os.environ)
    if refused and may_lack(os.environ) is None:
        raise Failure(f"{refused} ({LEAVE_OUT})")
    return refused


def complete(home: Path) -> None:
    """Give a toolkit made of wheels the names that compilers look for."""
    for library in (home / "lib").glob("*.so.*"):
        library.with_name(library.name.partition(".so")[0] + ".so").symlink_to(library.name)
    (home / "lib64").symlink_to("lib")


def compute_capabilities(torch_flags: str, toolkit: Path) -> str:
    """Return the GPU generations that both PyTorch's build and the toolkit know: ``80,90,...``."""
    wanted = {arch.removeprefix("sm_") for arch in torch_flags.split() if arch.startswith("sm_")}
    answer = subprocess.run(
        [toolkit / "bin/nvcc", "--list-gpu-code"], capture_output=True, text=True
    )
    known = {code.removeprefix("sm_") for code in answer.stdout.split()}
    return ",".join(sorted(filter(str.isdigit, wanted & known), key=int))


def find_nccl(
    packages: Path, major: int, home: str | None, system: Iterable[Path]
) -> tuple[Path, Path]:
    """Return the header and the library of the NCCL whose ``major`` version is PyTorch's.

    Looked for among the ``packages`` beside torch, as a process should have one NCCL, then in
    ``home``, then in the ``system``'s folders, where NVIDIA's containers have it.
    """
    beside = sorted((packages / "nvidia").glob("*"))
    others = []
    for folder in [*beside, *([Path(home)] if home else []), *system]:
        header = folder / "include/nccl.h"
        if not header.exists():
            continue
        found = re.search(r"define\s+NCCL_MAJOR\s+(\d+)", header.read_text(errors="replace"))
        libraries = ("lib", "lib64", f"lib/{sysconfig.get_config_var('MULTIARCH')}")
        for library in (folder / name / f"libnccl.so.{major}" for name in libraries):
            if found and int(found[1]) == major and library.exists():
                return header, library
        others.append(f"; {header} is of {found[1] if found else 'another'}")
    raise Failure(
        f"no NCCL {major}, as PyTorch has, in {packages}/nvidia, HOROVOD_NCCL_HOME or the "
        f"system{''.join(others)}: set HOROVOD_NCCL_HOME ({LEAVE_OUT})"
    )
