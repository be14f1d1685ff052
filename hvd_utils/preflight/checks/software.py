"""Is the same software on every rank: versions, MPI and this project's own code?"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from hvd_utils.cli.checkout import ROOT, git
from hvd_utils.cli.ranks import name_ranks, some
from hvd_utils.horovod_backend.consistency import CODE, code_hash
from hvd_utils.preflight.verdict import FAIL, OK, Verdict, groups_of, odd_ones

PACKAGES = ("torch", "torchvision", "horovod", "numpy", "mpi4py")
FAMILIES = {"nvidia-dali": "DALI", "nvidia-nccl": "NCCL"}  # the CUDA version is in the name
DRIVER = Path("/proc/driver/nvidia/version")


def collect(mpi: str) -> dict[str, Any]:
    """Return versions by name and the hash of the code; ``mpi`` is the library's own name."""
    return {
        "versions": {**package_versions(), "MPI": mpi, "driver": driver_version()},
        "code": code_hash(ROOT, (*CODE, "hvd_utils/recipes/*.yaml", "hvd_utils/recipes/*/*.yaml")),
    }


def package_versions() -> dict[str, str | None]:
    """Return what is installed, without importing it; None where it is not."""
    found: dict[str, str | None] = {"Python": platform.python_version()}
    found |= dict.fromkeys((*PACKAGES, *FAMILIES.values()))
    for package in distributions():
        name = (package.metadata["Name"] or "").lower()
        if name in PACKAGES:
            found[name] = package.version
        for prefix, family in FAMILIES.items():
            if name.startswith(prefix):
                found[family] = package.version
    return found


def mpi_name(library: str) -> str:
    """Return name and version of an MPI from its own first words."""
    first = library.strip().partition("\n")[0].rstrip("\0")
    short = re.match(r"(Open MPI) v([\w.]+)|(MPICH) Version:\s*([\w.]+)", first)
    return " ".join(part for part in short.groups() if part) if short else first[:60]


def driver_version() -> str | None:
    """Return the version of NVIDIA's kernel module, None without one."""
    try:
        found = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", DRIVER.read_text())
    except OSError:
        return None
    return found[1] if found else None


def git_revision() -> str | None:
    """Return the commit of the code, marked where files differ from it; None outside a checkout."""
    return git("describe", "--always", "--dirty", "--abbrev=12")


def judge(
    facts: Mapping[int, Mapping], hosts: Mapping[int, str], revision: str | None
) -> list[Verdict]:
    """Judge what ``collect`` found on all ranks; ``revision`` is rank 0's."""
    return [_judge_versions(facts, hosts), _judge_code(facts, hosts, revision)]


def _judge_versions(facts: Mapping[int, Mapping], hosts: Mapping[int, str]) -> Verdict:
    versions = {rank: fact["versions"] for rank, fact in facts.items()}
    names = list(dict.fromkeys(name for known in versions.values() for name in known))
    columns = {name: {r: known.get(name) for r, known in versions.items()} for name in names}
    odd = [text for name in names if (text := odd_ones(name, columns[name], hosts))]
    if odd:
        remedy = "use one environment everywhere, on a shared file system or installed alike"
        return Verdict("versions", FAIL, "; ".join(odd), remedy)
    common = {name: groups_of(column)[0][0] for name, column in columns.items()}
    missing = [name for name in (*PACKAGES, "DALI") if common.get(name) is None]
    if missing:
        seen = f"{', '.join(missing)} not installed on any rank"
        return Verdict("versions", FAIL, seen, "activate the environment that make setup made")
    return Verdict("versions", OK, ", ".join(f"{k} {v}" for k, v in common.items() if v))


def _judge_code(
    facts: Mapping[int, Mapping], hosts: Mapping[int, str], revision: str | None
) -> Verdict:
    (common, _), *others = groups_of({rank: fact["code"] for rank, fact in facts.items()})
    if others:
        told = some(f"{code} on {name_ranks(ranks, hosts)}" for code, ranks in others)
        remedy = "copy the same checkout to every host, or put it on a shared file system"
        return Verdict("code", FAIL, f"{common} on most ranks, but {told}", remedy)
    git = f", git {revision}" if revision else ""
    return Verdict("code", OK, f"same on all ranks ({common}{git})")
