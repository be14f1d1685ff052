"""Does each node offer what the job needs: shared memory, files, processes, disk, RAM, cores?"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from hvd_utils.cli.ranks import name_hosts, name_ranks
from hvd_utils.horovod_backend.node import binding_hint
from hvd_utils.preflight.verdict import FAIL, OK, WARN, Verdict

GB = 1e9
SHM = "/dev/shm"


def collect(local_size: int, output: Path | None) -> dict[str, Any]:
    """Return sizes in bytes, limits (-1: none) and cores, as this rank sees its node."""
    allowed, cores = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    return {
        "shm": _free(Path(SHM)),
        "tmp": _free(Path(tempfile.gettempdir())),
        "output": _free(output) if output else None,
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "processes": resource.getrlimit(resource.RLIMIT_NPROC)[0],
        "ram_per_rank": psutil.virtual_memory().available / local_size,
        "cores": cores,
        "allowed": allowed,
        "local_size": local_size,
        "binding": binding_hint(allowed, cores, local_size),
    }


def _free(folder: Path) -> int | None:
    """Return the free bytes where ``folder`` is or will be; None where that is unknown."""
    for place in (folder, *folder.absolute().parents):
        if place.exists():
            try:
                return shutil.disk_usage(place).free
            except OSError:
                return None
    return None


def judge(facts: Mapping[int, Mapping], hosts: Mapping[int, str]) -> list[Verdict]:
    """Judge what ``collect`` found on all ranks."""
    per_rank = facts[min(facts)]["local_size"]
    found = [
        # NCCL takes 10 to 30 MB a rank, Open MPI 4 MB and more for each pair of local ranks.
        _at_least(facts, hosts, "/dev/shm", "shm", (0.03 * GB * per_rank, 0.25 * GB),
                  "mount it larger (docker run --shm-size=8g, or mount -o remount,size=50%)"),
        _at_least(facts, hosts, "open files", "files", (1024, 4096),
                  "raise it: ulimit -n 65536, or LimitNOFILE= of the Slurm daemon", count=True),
        _at_least(facts, hosts, "processes", "processes", (512, 4096),
                  "raise it: ulimit -u 65536, or LimitNPROC= of the Slurm daemon", count=True),
        _at_least(facts, hosts, "free in /tmp", "tmp", (0.1 * GB, 1 * GB),
                  "make room, or set TMPDIR"),
        _at_least(facts, hosts, "free memory a rank", "ram_per_rank", (0.5 * GB, 2 * GB),
                  "end what else runs there, ask for more memory, or start fewer ranks a node"),
        _judge_cores(facts, hosts),
    ]  # fmt: skip
    if any(fact["output"] is not None for fact in facts.values()):
        remedy = "make room or choose another --output: a checkpoint of ResNet-50 takes 0.2 GB"
        found.insert(
            4, _at_least(facts, hosts, "free for output", "output", (1 * GB, 5 * GB), remedy)
        )
    return found


def _at_least(
    facts: Mapping[int, Mapping],
    hosts: Mapping[int, str],
    check: str,
    key: str,
    bounds: tuple[float, float],
    remedy: str,
    count: bool = False,
) -> Verdict:
    """Judge an amount: below the first bound it fails, below the second it is a warning."""
    show: Callable[[float], str] = _count if count else _size
    known = {r: f[key] for r, f in facts.items() if f[key] is not None and f[key] != -1}
    if not known:
        return Verdict(check, OK, "no limit")
    low = min(known, key=known.get)
    for verdict, bound in zip((FAIL, WARN), bounds, strict=True):
        short = [rank for rank, amount in known.items() if amount < bound]
        if short:
            seen = f"{show(known[low])} on {hosts.get(low)}, should be {show(bound)} or more"
            others = (
                f" (below it: {name_hosts(short, hosts)})"
                if len({hosts.get(r) for r in short}) > 1
                else ""
            )
            machine = len(short) < len(known) or key == "ram_per_rank"
            return Verdict(check, verdict, seen + others, remedy, machine)
    return Verdict(check, OK, f"{show(known[low])}{' or more' if len(known) > 1 else ''}")


def _judge_cores(facts: Mapping[int, Mapping], hosts: Mapping[int, str]) -> Verdict:
    bound = [rank for rank, fact in facts.items() if fact["binding"]]
    if bound:
        fact = facts[bound[0]]
        seen = (
            f"{name_ranks(bound, hosts)} may use {fact['allowed']} of {fact['cores']} cores, with "
            f"{fact['local_size']} ranks a node"
        )
        return Verdict(
            "cores a rank", WARN, seen, "launch with --bind-to none, or more cores a rank"
        )
    share = {r: min(f["allowed"], f["cores"] / f["local_size"]) for r, f in facts.items()}
    low = min(share, key=share.get)
    if share[low] < 1:
        fact = facts[low]
        seen = f"{fact['local_size']} ranks share {fact['cores']} cores of {hosts.get(low)}"
        return Verdict("cores a rank", WARN, seen, "start at most one rank a core")
    return Verdict("cores a rank", OK, f"{share[low]:g}{' or more' if len(share) > 1 else ''}")


def _size(amount: float) -> str:
    return f"{amount / GB:,.1f} GB" if amount >= GB else f"{amount / 1e6:,.0f} MB"


def _count(amount: float) -> str:
    return f"{amount:,.0f}"
