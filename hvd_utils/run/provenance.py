"""The provenance of a run: versions, hosts, launch and git state."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml

from hvd_utils.cli.checkout import git
from hvd_utils.cli.files import write_text
from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend import affinity
from hvd_utils.horovod_backend.world import World

PACKAGES = (
    *("torch", "torchvision", "timm", "horovod", "nvidia-dali-cuda130", "nvidia-dali-cuda120"),
    *("mpi4py", "numpy", "pillow"),
)


def environment(world: World) -> dict[str, Any]:
    """Return versions, hosts, devices, command line and git state; collective."""
    device = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "cpu"
    cpus = affinity.format_cpulist(os.sched_getaffinity(0))
    places = world.gather((world.host, device, cpus, affinity.pci_address(world.device)))
    hosts: dict[str, int] = {}
    for host, *_ in places:
        hosts[host] = hosts.get(host, 0) + 1
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "processes": world.size,
        "hosts": hosts,  # processes on each
        "devices": sorted({name for _, name, *_ in places}),
        "ranks": [{"host": host, "cpus": cpus, "gpu": gpu} for host, _, cpus, gpu in places],
        "cores_per_process": world.cores,
        "communication": {
            "controller": os.environ.get("HOROVOD_CONTROLLER", "mpi"),
            "nccl": world.nccl_built,
        },
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "git": git_state(),
    }


def record(run: Path, settings: Settings, facts: dict[str, Any]) -> None:
    """Write settings and environment beside the run's results."""
    plain = settings.model_dump(mode="json")
    if settings.init:
        plain["init_checksum"] = settings.experiment()["init"]
    write_text(run / "settings.yaml", yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    write_text(run / "environment.json", json.dumps(facts, indent=2) + "\n")


def git_state() -> dict[str, Any] | None:
    """Return the commit of the code and the files changed since; None outside a checkout."""
    commit = git("rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "changed": (git("status", "--porcelain") or "").splitlines()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
