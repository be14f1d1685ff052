"""Pin each process to its share of the cores of the node, near its GPU where possible.

A core here is a physical one; its hardware threads, which Linux numbers as CPUs, stay together.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

SYS = Path("/sys")

# The CPUs that the launcher left to this process, before it was pinned.
_given: frozenset[int] | None = None


class Core(NamedTuple):
    """A physical core: where it is, and its CPUs. Cores sort by socket and NUMA node."""

    socket: int
    node: int
    cpus: tuple[int, ...]


class Place(NamedTuple):
    """What a process may use: its host, its CPUs, and those near its GPU (none: no GPU known)."""

    host: str
    allowed: frozenset[int]
    near: frozenset[int]


def cores_of(
    local_rank: int, local_size: int, cores: Collection[Core], near: Sequence[Collection[int]]
) -> frozenset[int]:
    """Return the CPUs of one of ``local_size`` processes that share ``cores``.

    ``near`` has for each process the CPUs near its GPU, none where it has no GPU. The shares are
    whole cores, disjoint, and even to one. Each is taken near the process's GPU as far as those
    who share that NUMA node leave it, then from the same socket, then from anywhere; without GPUs
    shares are consecutive. Where there are fewer cores than processes, all get all of them.
    """
    free = sorted(cores)
    if len(free) < local_size:
        return frozenset(cpu for core in free for cpu in core.cpus)
    shares: list[list[Core]] = [[] for _ in range(local_size)]
    close = [{core for core in free if set(core.cpus) & set(cpus)} for cpus in near]
    least, extra = divmod(len(free), local_size)

    def take(rank: int, wanted: list[Core], count: int) -> None:
        for core in wanted[:count]:
            free.remove(core)
            shares[rank].append(core)

    # Near the GPU: an even part of what is near, for those who are near the same.
    for rank in range(local_size):
        sharing = [other for other in range(local_size) if close[other] == close[rank]]
        part = even_parts(len(close[rank]), len(sharing))[sharing.index(rank)]
        take(rank, [core for core in free if core in close[rank]], min(part, least))
    # The rest of each share, those with a GPU first; then one more each of what is left over, to
    # those who have it near.
    by_choice = sorted(range(local_size), key=lambda rank: not close[rank])
    for rank in by_choice:
        take(rank, _nearest_first(free, close[rank]), least - len(shares[rank]))
    for _ in range(extra):
        rank = min(by_choice, key=lambda rank: close[rank].isdisjoint(free))
        by_choice.remove(rank)
        take(rank, _nearest_first(free, close[rank]), 1)
    return frozenset(cpu for core in shares[local_rank] for cpu in core.cpus)


def even_parts(count: int, parts: int) -> list[int]:
    """Return ``count`` things in so many parts, even to one."""
    return [count * (i + 1) // parts - count * i // parts for i in range(parts)]


def _nearest_first(free: Iterable[Core], close: Collection[Core]) -> list[Core]:
    sockets = {core.socket for core in close}
    return sorted(free, key=lambda core: (core not in close, core.socket not in sockets, core))


def share(places: Sequence[Place], rank: int, cores: Collection[Core]) -> frozenset[int]:
    """Return the CPUs for process ``rank`` of all ``places``, in the order of ranks.

    Processes share what the same launcher left to all of them. Where it bound each to CPUs of its
    own, as Slurm does, a process shares with nobody and keeps what it has.
    """
    mine = places[rank]
    together = [
        other
        for other, place in enumerate(places)
        if (place.host, place.allowed) == (mine.host, mine.allowed)
    ]
    near = [places[other].near for other in together]
    return cores_of(together.index(rank), len(together), cores, near)


def parse_cpulist(text: str) -> frozenset[int]:
    """Return the CPUs of a list as Linux writes it: ``0-3,8`` is 0, 1, 2, 3 and 8."""
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def format_cpulist(cpus: Collection[int]) -> str:
    """Return CPUs as Linux writes them."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and cpu == parts[-1][-1] + 1:
            parts[-1][1:] = [cpu]
        else:
            parts.append([cpu])
    return ",".join("-".join(map(str, part)) for part in parts)


def read_cores(allowed: Collection[int], sys: Path = SYS) -> list[Core]:
    """Return the machine's cores with those of their CPUs that are ``allowed``.

    Where the machine does not report this, as in some containers, each CPU is a core of one node.
    """
    nodes = {}
    for folder in sys.glob("devices/system/node/node[0-9]*"):
        for cpu in parse_cpulist(_read(folder / "cpulist") or ""):
            nodes[cpu] = int(folder.name.removeprefix("node"))
    cores = set()
    for cpu in allowed:
        topology = sys / f"devices/system/cpu/cpu{cpu}/topology"
        siblings = parse_cpulist(_read(topology / "thread_siblings_list") or str(cpu))
        cpus = tuple(sorted(siblings & set(allowed))) or (cpu,)
        socket = int(_read(topology / "physical_package_id") or 0)
        cores.add(Core(socket, nodes.get(cpu, 0), cpus))
    return sorted(cores)


def read_near(gpu: str | None, sys: Path = SYS) -> frozenset[int]:
    """Return the CPUs near a GPU, given its PCI address as 0000:07:00.0; none if not known."""
    text = _read(sys / "bus/pci/devices" / gpu / "local_cpulist") if gpu else None
    return parse_cpulist(text or "")


def pci_address(device: torch.device) -> str | None:
    """Return the PCI address of a CUDA device; None for a CPU, or where torch does not know it."""
    if device.type != "cuda":
        return None
    import torch

    known = torch.cuda.get_device_properties(device)
    try:
        return f"{known.pci_domain_id:04x}:{known.pci_bus_id:02x}:{known.pci_device_id:02x}.0"
    except AttributeError:  # torch before 2.6
        return None


def allowed_cpus() -> frozenset[int]:
    """Return the CPUs that the launcher left to this process, whether it was pinned since or not.

    An elastic job pins anew whenever its world changes.
    """
    return _given or frozenset(os.sched_getaffinity(0))


def pin(cpus: Collection[int]) -> None:
    """Pin this process's threads, and so those that they start, but none that is bound elsewhere.

    Some run already: those of MPI, Horovod and CUDA.
    """
    global _given
    usual = frozenset(os.sched_getaffinity(0))
    _given = allowed_cpus()
    for thread in map(int, os.listdir("/proc/self/task")):
        with contextlib.suppress(ProcessLookupError):  # it has ended
            if os.sched_getaffinity(thread) == usual:
                os.sched_setaffinity(thread, cpus)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
