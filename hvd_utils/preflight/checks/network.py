"""Measure clocks, allreduce and pairs of ranks over MPI, and find slow ranks.

Sums are nonblocking, so that they can be given up: Open MPI's are up to some times slower so, and
NCCL's on GPUs are quicker. The table's figures are a lower bound for the job.
"""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from mpi4py import MPI

from hvd_utils.preflight.this_rank import ThisRank

EXCHANGE_TAG, GROUP_TAG = 12, 13
EXCHANGED = 2**20  # bytes of one message of a pair
SIZES = (2**10, 2**14, 2**18, 2**22, 2**26, 2**28)  # bytes, 1 KB to 256 MB
MEMORY_SHARE = 6  # of a rank's share of the free memory, one part for the buffer to be summed
NETWORK = Path("/sys/class/net")
INFINIBAND = Path("/sys/class/infiniband")


class TooLate(Exception):
    """A sum or an exchange was not over in time."""


def ready(here: ThisRank, limit: float) -> dict[str, Any]:
    """Return the bytes that this rank can spare for a buffer, and the speed of its node's links."""
    spare = psutil.virtual_memory().available / here.local_size / MEMORY_SHARE
    return {"bytes": int(spare), "gbit": link_gbit(NETWORK, INFINIBAND) if here.leads else None}


def link_gbit(network: Path, infiniband: Path) -> float | None:
    """Return the speed of the fastest link that is up, Gbit/s, None where it is unknown."""
    speeds = [parse_rate(_read(path)) for path in infiniband.glob("*/ports/*/rate")]
    for interface in network.glob("*"):
        if (interface / "device").exists():  # a real one, neither lo nor docker0
            speeds.append(parse_megabit(_read(interface / "speed")))
    return max((speed for speed in speeds if speed), default=None)


def parse_rate(text: str) -> float | None:
    """Return Gbit/s of an InfiniBand port's rate, as ``100 Gb/sec (4X EDR)``."""
    found = re.match(r"([\d.]+)\s*Gb/sec", text)
    return float(found[1]) if found else None


def parse_megabit(text: str) -> float | None:
    """Return Gbit/s of a network interface's speed, Mbit/s there and -1 where it is down."""
    return int(text) / 1000 if text.strip().isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the speed of an interface that is down cannot be read
        return ""


def allreduce(
    here: ThisRank,
    limit: float,
    group: str,
    groups: Sequence[Sequence[int]],
    size: int,
    repetitions: int,
) -> float:
    """Sum ``size`` bytes over that one of several groups of ranks that this rank is in.

    Returns the median seconds. ``group`` is a name for the communicators. Raises TooLate.
    """
    until = time.monotonic() + limit
    comm = _group(here, group, next(ranks for ranks in groups if here.rank in ranks))
    buffer = np.zeros(size // 4, np.float32)
    seconds = []
    for number in range(repetitions + 1):
        began = time.perf_counter()
        finish([comm.Iallreduce(MPI.IN_PLACE, buffer)], until, buffer)
        if number:  # the first one waits for the last to arrive
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _group(here: ThisRank, name: str, ranks: Sequence[int]) -> Any:
    if len(ranks) == here.size:
        return here.comm
    name = f"{name} {list(ranks)}"
    if name not in here.groups:
        members = here.comm.Get_group().Incl(list(ranks))
        here.groups[name] = here.comm.Create_group(members, GROUP_TAG)
    return here.groups[name]


_given_up: list[Any] = []  # MPI may still write to the buffers of what was given up


def finish(requests: Sequence[Any], until: float, *buffers: np.ndarray) -> None:
    """Complete requests; give the core away while waiting. Raise TooLate at the time ``until``."""
    for request in requests:
        while not request.Test():
            if time.monotonic() > until:
                _given_up.append((requests, buffers))
                raise TooLate("not over in time: another rank hangs, or the network is very slow")
            os.sched_yield()


def work(here: ThisRank, limit: float, repetitions: int) -> float:
    """Return the seconds of a fixed amount of adding up, as in a sum over ranks."""
    term, total = np.ones(2**18, np.float32), np.zeros(2**18, np.float32)
    began = time.perf_counter()
    for _ in range(repetitions):
        np.add(total, term, out=total)
    return time.perf_counter() - began


def ring(ranks: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Return the pairs of neighbours in a ring, in rounds in which each rank has one partner."""
    count = len(ranks)
    if count < 2:
        return []
    if count == 2:
        return [[(ranks[0], ranks[1])]]
    pairs = [(ranks[i], ranks[(i + 1) % count]) for i in range(count)]
    rounds = [pairs[0 : count - count % 2 : 2], pairs[1::2]]
    return [*rounds, [pairs[-1]]] if count % 2 else rounds


def exchange(
    here: ThisRank, limit: float, rounds: Sequence[Sequence[tuple[int, int]]], repetitions: int
) -> dict[int, float]:
    """Swap 1 MB with each partner of ``rounds``; return the median seconds by partner's rank."""
    until = time.monotonic() + limit
    mine, theirs = np.zeros(EXCHANGED, np.uint8), np.zeros(EXCHANGED, np.uint8)
    seconds = {}
    for pairs in rounds:
        partner = next((a + b - here.rank for a, b in pairs if here.rank in (a, b)), None)
        if partner is None:
            continue
        swap(here.comm, partner, mine[:1], theirs[:1], until)  # both are there
        times = []
        for _ in range(repetitions):
            began = time.perf_counter()
            swap(here.comm, partner, mine, theirs, until)
            times.append(time.perf_counter() - began)
        seconds[partner] = statistics.median(times)
    return seconds


def swap(comm: Any, partner: int, mine: np.ndarray, theirs: np.ndarray, until: float) -> None:
    """Send one array and receive another of the same size."""
    requests = [
        comm.Irecv(theirs, source=partner, tag=EXCHANGE_TAG),
        comm.Isend(mine, dest=partner, tag=EXCHANGE_TAG),
    ]
    finish(requests, until, mine, theirs)


def bus_gbit(size: int, ranks: int, seconds: float) -> float:
    """Return the bus bandwidth of an allreduce, Gbit/s: 2(P-1)/P of the bytes cross each link."""
    return 2 * (ranks - 1) / ranks * size * 8 / seconds / 1e9


def exchange_gbit(seconds: float) -> float:
    """Return what a pair that swaps messages moves each way, Gbit/s."""
    return EXCHANGED * 8 / seconds / 1e9


def best_times(swaps: Mapping[int, Mapping[int, float]]) -> dict[int, float]:
    """Return each rank's quicker exchange: a slow rank has two slow ones, its neighbour one."""
    return {rank: min(times.values()) for rank, times in swaps.items() if times}


def stands_out(seconds: Mapping[int, float]) -> tuple[int, float]:
    """Return the slowest rank, and its time by the median of the others' (1 if it is alone)."""
    slowest = max(seconds, key=seconds.get)
    others = [value for rank, value in seconds.items() if rank != slowest]
    return slowest, seconds[slowest] / statistics.median(others) if others else 1.0


def flatten(swaps: Iterable[Mapping[int, float]]) -> list[float]:
    """Return all times of these ranks' exchanges."""
    return [value for times in swaps for value in times.values()]
