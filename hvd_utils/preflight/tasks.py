"""The requests that a rank serves. Each takes this rank, a time limit in seconds, and arguments."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mpi4py import MPI

from hvd_utils.preflight.checks import gpu, network, node, software
from hvd_utils.preflight.child import Child, ChildFailed, ChildTimeout
from hvd_utils.preflight.this_rank import ThisRank

Task = Callable[..., Any]


def run(here: ThisRank, task: str, limit: float, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{"facts": …}`` of a task, or ``{"error": text, "timeout": bool}``; never raises."""
    try:
        return {"facts": TASKS[task](here, limit, **arguments)}
    except ChildTimeout as error:
        return {"error": str(error), "timeout": True}
    except ChildFailed as error:
        return {"error": str(error), "timeout": False}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "timeout": False}


def place(here: ThisRank, limit: float, hosts: dict[int, str]) -> dict[str, int]:
    """Learn which ranks answered, and where they are."""
    here.hosts = hosts
    return {"local_rank": here.local_rank, "local_size": here.local_size}


def local(here: ThisRank, limit: float) -> dict[str, Any]:
    """Collect the facts of this rank that need no torch."""
    facts: dict[str, Any] = {}
    if "software" in here.options.checks:
        facts["software"] = software.collect(software.mpi_name(MPI.Get_library_version()))
    if "node" in here.options.checks:
        facts["node"] = node.collect(here.local_size, here.settings.output)
    if "gpu" in here.options.checks and here.settings.device != "cpu":
        facts["gpu"] = gpu.collect(limit)
    return facts


def now(here: ThisRank, limit: float) -> float:
    """Return this node's clock, seconds since 1970."""
    return time.time()


def sees(here: ThisRank, limit: float, path: str) -> bool:
    """Return whether this rank sees a file, in the end: a shared file system may lag."""
    program = (
        "import os, sys, time\n"
        "until = time.monotonic() + float(sys.argv[2])\n"
        "while not os.path.exists(sys.argv[1]) and time.monotonic() < until:\n"
        "    time.sleep(0.1)\n"
        "    os.scandir(os.path.dirname(sys.argv[1])).close()\n"  # makes NFS read anew
        "sys.exit(not os.path.exists(sys.argv[1]))"
    )
    command = [sys.executable, "-S", "-c", program, path, str(limit / 2)]
    try:  # in a child process: a dead file system hangs its caller
        done = subprocess.run(command, timeout=limit, stderr=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise ChildTimeout(f"{Path(path).parent} does not answer within {limit:.0f} s") from None
    return done.returncode == 0


def child(here: ThisRank, limit: float, job: str, **arguments: Any) -> Any:
    """Have the child do a job; see ``child_tasks``."""
    place = {"rank": here.rank, "size": here.size}
    place |= {"local_rank": here.local_rank, "local_size": here.local_size}
    settings = here.settings.model_dump(mode="json")
    if here.child is None:
        here.child = Child()
    return here.child.ask(job, limit, settings=settings, place=place, **arguments)


TASKS: dict[str, Task] = {
    "place": place,
    "local": local,
    "now": now,
    "sees": sees,
    "child": child,
    "ready": network.ready,
    "allreduce": network.allreduce,
    "work": network.work,
    "exchange": network.exchange,
}
