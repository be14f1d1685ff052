#!/usr/bin/env python3
"""Choose CUDA 12 or 13 for this machine: needs nothing but Python, before anything is downloaded.

    python tools/choose_cuda.py VENV          print 12 or 13
    python tools/choose_cuda.py --check 12    fail where Horovod could not be built with NCCL

Environment: ``CUDA=12`` or ``CUDA=13`` decides. Otherwise the driver does.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import cuda_toolkit
from step import Failure

# By CUDA, the driver of its first release. It runs all later ones of the same major version.
OLDEST_DRIVER = {12: 525, 13: 580}


def driver_version(root: Path = cuda_toolkit.ROOT) -> str | None:
    """Return the version of NVIDIA's driver; None without one, or where it does not tell."""
    try:
        found = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", (root / cuda_toolkit.DRIVER).read_text())
    except OSError:
        return None
    return found[1] if found else None


def runs(driver: str | None, cuda: int) -> bool:
    """Whether this driver runs that CUDA; no driver is taken to."""
    return driver is None or int(driver.partition(".")[0]) >= OLDEST_DRIVER[cuda]


def choose(
    driver: str | None,
    asked: str | None = None,
    had: int | None = None,
    without_gpu: bool = False,
) -> int:
    """Return the CUDA to set up: what was asked for, else the newest that the driver runs.

    What an environment ``had`` before stays where the driver runs it, so that nodes with and
    without a driver may share it.
    """
    if asked:
        if asked not in map(str, OLDEST_DRIVER):
            raise Failure(f"CUDA={asked} is neither 12 nor 13: set one of them, or unset CUDA")
        return int(asked)
    fit = [cuda for cuda in OLDEST_DRIVER if runs(driver, cuda)]
    if without_gpu and not fit:
        fit = [*OLDEST_DRIVER]
    if not fit:
        raise Failure(
            f"NVIDIA's driver {driver} is older than {OLDEST_DRIVER[12]}, the first for CUDA 12: "
            "update it, or set HOROVOD_WITHOUT_GPU=1 to train without GPUs"
        )
    return had if had in fit else max(fit)


def cuda_of(venv: Path) -> int | None:
    """Return the CUDA of the DALI in a virtual environment, None without DALI."""
    found = next(venv.glob("lib/python*/site-packages/nvidia_dali_cuda1[23]0-*"), None)
    return found and int(re.search(r"cuda(\d\d)0-", found.name)[1])


def check(cuda: int, driver: str | None) -> str | None:
    """Return a warning about this choice, if any; raise Failure where NCCL could not be built."""
    found = cuda_toolkit.find(cuda_toolkit.folders(os.environ), str(cuda))
    if isinstance(found, Path):
        cuda_toolkit.suit_compiler(found)
    elif cuda_toolkit.may_lack(os.environ) is None:
        cuda_toolkit.wheels(str(cuda), found)
    if runs(driver, cuda):
        return None
    return (
        f"warning: the driver here is {driver}, but CUDA={cuda} needs {OLDEST_DRIVER[cuda]} or "
        "newer, or NVIDIA's cuda-compat"
    )


def main() -> None:
    """Answer the set-up."""
    driver = driver_version()
    without_gpu = os.environ.get("HOROVOD_WITHOUT_GPU") == "1"
    try:
        if sys.argv[1] == "--check":
            if warning := check(int(sys.argv[2]), driver):
                print(f"setup: {warning}", file=sys.stderr)
        else:
            had = cuda_of(Path(sys.argv[1]))
            print(choose(driver, os.environ.get("CUDA"), had, without_gpu))
    except Failure as failure:
        sys.exit(f"setup: {failure}")


if __name__ == "__main__":
    main()
