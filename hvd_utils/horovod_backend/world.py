"""The world of processes: Horovod's ranks, this rank's device and cores, small allreduces."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import numpy as np
import torch

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import require_together
from hvd_utils.horovod_backend import affinity
from hvd_utils.horovod_backend.broadcast import broadcast_object
from hvd_utils.horovod_backend.consistency import require_equal
from hvd_utils.horovod_backend.node import (
    UNSEEN_REMEDY,
    binding_hint,
    own_gpu_index,
    require_own_gpus,
    unused_gpu,
)
from hvd_utils.nn.cpu import compute_on, keep_freed_memory

# Open MPI spins while it waits and would take the cores from the decoding threads.
os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")


@dataclass(frozen=True)
class World:
    """The processes of this job, seen from one of them."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    host: str
    device: torch.device
    cores: int  # for this process: its share of the node's

    @property
    def is_root(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's ``value`` (anything that pickles) on every rank; collective."""
        return broadcast_object(value, 0, "world.broadcast") if self.size > 1 else value

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's ``value``, in the order of ranks, on every rank; collective."""
        return hvd.allgather_object(value, name="world.gather") if self.size > 1 else [value]

    @property
    def nccl_built(self) -> bool:
        """Whether Horovod was built with NCCL."""
        return bool(hvd.nccl_built())

    @property
    def gpu_memory(self) -> int | None:
        """Bytes of this process's GPU, None on a CPU."""
        if self.device.type != "cuda":
            return None
        return torch.cuda.get_device_properties(self.device).total_memory

    def sum(self, values: torch.Tensor | Sequence[float], name: str) -> np.ndarray:
        """Return element-wise sums over all ranks, float64, of a small vector; collective."""
        total = torch.as_tensor(values, dtype=torch.float64).cpu().contiguous()
        if self.size > 1:
            total = hvd.allreduce(total, op=hvd.Sum, name=name)
        return total.numpy()


def built_with() -> dict[str, bool]:
    """Return with which of MPI, Gloo and NCCL Horovod was built."""
    return {
        "mpi": bool(hvd.mpi_built()),
        "gloo": bool(hvd.gloo_built()),
        "nccl": bool(hvd.nccl_built()),
    }


def start_world(
    device: str,
    pin: bool | None = None,
    facts: Mapping[str, Any] | None = None,
) -> World:
    """Start Horovod and settle on a device (``auto``, ``cpu`` or ``cuda``), one GPU a local rank.

    ``pin`` keeps each process to its share of the cores; None: with GPUs only. ``facts`` have to be
    the same on all ranks.

    Raises BadInput where the requested device is not
    there, or not for every rank, where ranks share a GPU, and where facts differ.
    """
    hvd.init()
    require_together(hvd.size())
    allowed, present = len(affinity.allowed_cpus()), os.cpu_count() or 1
    cores = max(1, min(allowed, present // hvd.local_size()))
    hint = binding_hint(allowed, present, hvd.local_size())
    if hint and hvd.rank() == 0:
        print(hint, flush=True)
    world = World(
        rank=hvd.rank(),
        size=hvd.size(),
        local_rank=hvd.local_rank(),
        local_size=hvd.local_size(),
        host=socket.gethostname(),
        device=_choose_device(device, hvd.local_rank(), hvd.local_size()),
        cores=cores,
    )
    if facts is not None:
        require_equal(world.gather((world.host, facts)), world.rank)
    kinds = world.gather((world.device.type, world.host))
    without = sorted({host for kind, host in kinds if kind != kinds[0][0]})
    if without:
        raise BadInput(
            f"rank 0 ({kinds[0][1]}) runs on {kinds[0][0]} but ranks on {', '.join(without)} do "
            "not: mend their GPUs, leave those hosts out, or set --device cpu"
        )
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
        gpus = world.gather((world.host, affinity.pci_address(world.device)))
        require_own_gpus(gpus, os.environ)
        if world.size > 1 and not world.nccl_built:
            raise BadInput(
                "Horovod was built without NCCL: build it anew by "
                f"CUDA={torch.version.cuda.partition('.')[0]} make setup, or set --device cpu"
            )
    if world.device.type == "cpu":
        keep_freed_memory()
    if pin or (pin is None and world.device.type == "cuda"):
        world = _pin(world)
    compute_on(world.cores)
    return world


def _pin(world: World) -> World:
    """Pin this process to its share of the node's cores, if it is less than it has; collective."""
    allowed = affinity.allowed_cpus()
    near = affinity.read_near(affinity.pci_address(world.device))
    places = world.gather(affinity.Place(world.host, allowed, near))
    cpus = affinity.share(places, world.rank, affinity.read_cores(allowed))
    pinned = cpus < allowed
    if pinned or frozenset(os.sched_getaffinity(0)) != allowed:  # or pinned in an earlier world
        affinity.pin(cpus)
    counts = [count for count in world.gather(len(cpus) if pinned else 0) if count]
    if counts and world.is_root:
        print(
            f"pinned {len(counts)} of {world.size} processes to their share of cores, "
            f"{min(counts)} to {max(counts)} CPUs each; rank 0 to "
            f"{affinity.format_cpulist(os.sched_getaffinity(0))} (--no-pin leaves them free)",
            flush=True,
        )
    return replace(world, cores=len(cpus)) if pinned else world


def _choose_device(device: str, local_rank: int, local_size: int) -> torch.device:
    if device == "cpu":
        return torch.device("cpu")
    if found := unseen_gpu():
        raise BadInput(f"{socket.gethostname()} has an NVIDIA GPU {found}: {UNSEEN_REMEDY}")
    if not torch.cuda.is_available():
        if device == "auto":
            return torch.device("cpu")
        raise BadInput(
            f"no CUDA device on {socket.gethostname()}: set --device cpu, or ask the scheduler "
            "for GPUs and check nvidia-smi"
        )
    return torch.device("cuda", own_gpu_index(local_rank, local_size, torch.cuda.device_count()))


def unseen_gpu() -> str | None:
    """Return which GPU of this node PyTorch does not see, and why; None where there is no such."""
    found = None if torch.cuda.is_available() else unused_gpu(Path("/"), os.environ)
    if found is None:
        return None
    return f"({found}) that PyTorch {torch.__version__} does not see ({_why_no_cuda()})"


def _why_no_cuda() -> str:
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().partition("\n")[0].rstrip(".")
    return "it gives no reason"
