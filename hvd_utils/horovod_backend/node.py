"""A process's GPU and cores on its node. Needs no torch."""

from __future__ import annotations

import itertools
import os
import re
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from hvd_utils.cli.errors import BadInput

DRIVER = "proc/driver/nvidia/version"
UNSEEN_REMEDY = (
    "update the driver, take a PyTorch built for an older CUDA (CUDA=12 make setup), or set "
    "--device cpu to train without it"
)

# The local rank whose GPU is number 0 in this process.
_first = 0


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


def see_own_gpu_first(local_rank: int | None, root: Path = Path("/")) -> None:
    """Have CUDA call this process's GPU number 0, and those of its neighbours the numbers behind.

    Call it before anything starts CUDA, which then reads CUDA_VISIBLE_DEVICES. The keys of
    torch.compile's caches have a GPU's number (torch/_inductor/codecache.py): processes of a node
    find there what one of them compiled if all compute on the same number. All GPUs stay visible
    to all, and NCCL knows them by their bus. A second call changes nothing. ``root`` is ``/``.
    """
    global _first
    if not local_rank or _first:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        visible = ",".join(map(str, range(_usable_gpus(root))))
    ordered = own_gpu_first(visible, local_rank)
    if ordered is not None:
        os.environ["CUDA_VISIBLE_DEVICES"], _first = ordered, local_rank


def own_gpu_first(visible: str, local_rank: int) -> str | None:
    """Return CUDA_VISIBLE_DEVICES ``visible`` with the entry of a local rank before the others.

    Entries are numbers, in the order that CUDA_DEVICE_ORDER says, or UUIDs of GPUs or of their MIG
    instances. None where a local rank has no entry of its own: its scheduler shows it one GPU, or
    none. CUDA itself ignores all entries behind one that is no GPU, as -1.
    """
    named = itertools.takewhile(
        lambda name: name and not name.startswith("-"), map(str.strip, visible.split(","))
    )
    entries = list(named)
    if local_rank >= len(entries):
        return None
    return ",".join([entries.pop(local_rank), *entries])


def _usable_gpus(root: Path) -> int:
    """Return how many GPUs this process may open: a container or cgroup may have fewer."""
    return sum(map(_opens, (root / "dev").glob("nvidia[0-9]*")))


def _opens(device: Path) -> bool:
    try:
        os.close(os.open(device, os.O_RDWR))
    except OSError:
        return False
    return True


def own_gpu_index(local_rank: int, local_size: int, visible: int) -> int:
    """Return the number by which this process sees its GPU; see ``gpu_index``."""
    return gpu_index(local_rank, local_size, visible, _first)


def gpu_index(local_rank: int, local_size: int, visible: int, first: int = 0) -> int:
    """Return the GPU of a local rank among those ``visible`` to it.

    A scheduler may show each task only its own GPU, which then is number 0 for all of them. The GPU
    of the local rank ``first`` was put before the others. Raises BadInput where there are too few.
    """
    if visible == 1:
        return 0
    if local_size > visible:
        raise BadInput(
            f"{local_size} processes but {visible} GPUs on {socket.gethostname()}: "
            f"start {visible} processes a node"
        )
    if local_rank == first:
        return 0
    return local_rank + (local_rank < first)


def require_own_gpus(
    gpus: Sequence[tuple[str, str | None]], environment: Mapping[str, str]
) -> None:
    """Raise BadInput where two processes have one GPU, which NCCL refuses when it first sums.

    ``gpus`` are host and PCI address of each process. NCCL from 2.30 on allows it where a variable
    says so: https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html
    """
    if environment.get("NCCL_MULTI_RANK_GPU_ENABLE") == "1":
        return
    counts = Counter((host, address) for host, address in gpus if address)
    for (host, address), processes in counts.items():
        if processes > 1:
            raise BadInput(
                f"{processes} processes share one GPU of {host} ({address}): start one process a "
                "GPU, which can train several workers (--workers), or set --device cpu"
            )
