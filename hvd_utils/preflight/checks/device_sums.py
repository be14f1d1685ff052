"""Time a sum on the ranks' own devices, as the job makes it: by NCCL on GPUs. Runs in the child."""

from __future__ import annotations

import ipaddress
import socket
import statistics
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    import torch

WARM = 2  # sums before the clock starts: NCCL connects
BACKENDS = {"cuda": "nccl", "cpu": "gloo"}  # PyTorch's names, by kind of device
PATIENCE = timedelta(minutes=10)  # the child itself has a shorter limit, which its parent tells
NOT_BETWEEN_NODES = ("lo", "docker", "virbr", "veth")

_stores: dict[str, Any] = {}  # of the meeting that this process holds


def meet(shared: bool) -> dict[str, Any]:
    """Hold a meeting for a group of ranks; return its port, and the addresses of this node.

    ``shared`` says that all of the group are on this node.
    """
    from torch.distributed import TCPStore

    _stores["own"] = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    addresses = ["127.0.0.1"] if shared else node_addresses()
    return {"port": _stores["own"].port, "addresses": addresses}


def node_addresses() -> list[str]:
    """Return this node's IPv4 addresses that another node may reach, its name's first."""
    found = [
        address.address
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family == socket.AF_INET and not name.startswith(NOT_BETWEEN_NODES)
    ]
    try:
        named = socket.gethostbyname_ex(socket.gethostname())[2]
    except OSError:
        named = []
    named = [address for address in named if not ipaddress.ip_address(address).is_loopback]
    return list(dict.fromkeys(named + found))


def reachable(meeting: Mapping[str, Any], seconds: float = 2.0) -> str:
    """Return the first address of a meeting that answers; raise OSError where none does."""
    for address in meeting["addresses"]:
        try:
            socket.create_connection((address, meeting["port"]), timeout=seconds).close()
        except OSError:
            continue
        return address
    tried = ", ".join(meeting["addresses"]) or "no address"
    raise OSError(f"the first rank of the group cannot be reached at {tried}")


def timed_sum(
    device: torch.device,
    rank: int,
    ranks: Sequence[int],
    meeting: Mapping[str, Any],
    repetitions: int,
    size: int,
) -> float:
    """Sum ``size`` bytes over ``ranks``, the first of which holds the meeting.

    Returns the median seconds. Raises what PyTorch does where the sum fails, ArithmeticError where
    it is wrong.
    """
    import torch
    from torch import distributed

    place = ranks.index(rank)
    store = _stores.pop("own", None) if place == 0 else None
    if store is None:
        store = distributed.TCPStore(
            reachable(meeting), meeting["port"], is_master=False, timeout=PATIENCE
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(
        BACKENDS[device.type], store=store, rank=place, world_size=len(ranks), timeout=PATIENCE
    )
    try:
        buffer = torch.ones(size // 4, device=device)
        seconds = []
        for number in range(WARM + repetitions):
            buffer.fill_(1.0)
            _wait(device)
            began = time.perf_counter()
            distributed.all_reduce(buffer)
            _wait(device)
            if number >= WARM:
                seconds.append(time.perf_counter() - began)
        if not bool((buffer == len(ranks)).all()):
            raise ArithmeticError(f"a sum of ones over {len(ranks)} ranks is not {len(ranks)}")
        return statistics.median(seconds)
    finally:
        distributed.destroy_process_group()


def _wait(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
