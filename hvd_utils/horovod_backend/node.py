"""A process's GPU and cores on its node. Needs no torch."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from hvd_utils.cli.errors import BadInput

DRIVER = "proc/driver/nvidia/version"
UNSEEN_REMEDY = (
    "update the driver, take a PyTorch built for an older CUDA (CUDA=12 make setup), or set "
    "--device cpu to train without it"
)


def binding_hint(allowed: int, cores: int, local_size: int) -> str | None:
    """Return a warning where a launcher bound this process to fewer cores than its share.

    ``allowed`` of the node's ``cores`` may be used by this one of ``local_size`` processes. Open
    By default MPI binds each rank to one core, and decoding needs all of them.
    """
    if allowed >= cores // local_size or "OMPI_COMM_WORLD_RANK" not in os.environ:
        return None
    return (
        f"warning: {local_size} processes on {socket.gethostname()} may use {allowed} of its "
        f"{cores} cores each: launch with --bind-to none, or more cores a rank"
    )


def unused_gpu(root: Path, environment: Mapping[str, str]) -> str | None:
    """Return what this node has of an NVIDIA GPU, as "driver 535.1"; None without one.

    None too where CUDA_VISIBLE_DEVICES hides the GPUs on purpose. ``root`` is ``/``.
    """
    if environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles"):
        return None
    try:
        found = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", (root / DRIVER).read_text())
        return f"driver {found[1]}" if found else "a driver of unknown version"
    except OSError:
        return "/dev/nvidia0, without a driver" if (root / "dev/nvidia0").exists() else None


def gpu_index(local_rank: int, local_size: int, visible: int) -> int:
    """Return the GPU of a local rank among those ``visible`` to it.

    A scheduler may show each task only its own GPU, which then is number 0 for all of them.
    """
    if visible == 1:
        return 0
    if local_size > visible:
        raise BadInput(
            f"{local_size} processes but {visible} GPUs on {socket.gethostname()}: "
            f"start {visible} processes a node"
        )
    return local_rank
