"""Judge clocks, allreduce and the pairs of ranks."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hvd_utils.cli.ranks import name_hosts, name_ranks
from hvd_utils.preflight.checks.network import (
    best_times,
    bus_gbit,
    exchange_gbit,
    flatten,
    stands_out,
)
from hvd_utils.preflight.verdict import FAIL, OK, SKIP, WARN, Verdict

MUCH_SKEW, SOME_SKEW = 30.0, 0.1  # seconds between two nodes' clocks
POOR, BROKEN = 0.4, 0.05  # shares of the link's speed
PEERS = 50.0  # Gbit/s: PCIe 3.0 x16 gives 80 from GPU to GPU, and 40 through the node's memory
SLOW = 2.0  # times the others' median


@dataclass(frozen=True)
class Timed:
    """An allreduce: bytes, ranks and seconds, and between whom."""

    size: int
    ranks: int
    seconds: float

    @property
    def gbit(self) -> float:
        """Bus bandwidth, Gbit/s."""
        return bus_gbit(self.size, self.ranks, self.seconds)

    def facts(self) -> dict[str, float]:
        """Return the figures for programs."""
        return {
            "bytes": self.size,
            "ranks": self.ranks,
            "seconds": self.seconds,
            "bus_gbit": self.gbit,
        }


def judge_clocks(offsets: Mapping[int, tuple[float, float]], hosts: Mapping[int, str]) -> Verdict:
    """Judge clocks against rank 0's: by rank, seconds ahead and how far that may be off."""
    if not offsets:
        return Verdict("clocks", SKIP, "one node")
    least = {rank: max(0.0, abs(ahead) - error) for rank, (ahead, error) in offsets.items()}
    worst = max(least, key=least.get)
    ahead, error = offsets[worst]
    for verdict, bound in ((FAIL, MUCH_SKEW), (WARN, SOME_SKEW)):
        wrong = [rank for rank in least if least[rank] > bound]
        if wrong:
            way = "ahead of" if ahead > 0 else "behind"
            seen = f"{hosts[worst]} is {abs(ahead):.1f} s {way} {hosts.get(0, 'rank 0')}"
            if len(wrong) > 1:
                seen += f"; off are {name_hosts(wrong, hosts)}"
            return Verdict("clocks", verdict, seen, "run chrony or ntpd on every node", True)
    return Verdict(
        "clocks", OK, f"{len(offsets) + 1} nodes within {abs(ahead) + error:.3f} s of each other"
    )


def judge_sums(check: str, sums: Sequence[Timed], note: str = "") -> Verdict:
    """Report an allreduce: the smallest and the largest size."""
    if not sums:
        return Verdict(check, SKIP, note or "nothing measured")
    small, large = sums[0], sums[-1]
    seen = (
        f"{_bytes(small.size)} in {_time(small.seconds)}, {_bytes(large.size)} in "
        f"{_time(large.seconds)}: {large.gbit:.1f} Gbit/s bus, {large.ranks} ranks"
    )
    return Verdict(check, OK, f"{seen}{'; ' + note if note else ''}")


def judge_link(
    measured: float | None, expected: float | None, source: str, hosts: int, *, gpus: bool = False
) -> Verdict:
    """Judge the best that MPI reached between nodes against a node's link, Gbit/s.

    With ``gpus`` it is no failure: gradients travel by NCCL then, which ``judge_sum_link`` judges.
    """
    if hosts < 2 or measured is None:
        return Verdict("links", SKIP, "one node" if hosts < 2 else "nothing measured")
    if expected is None:
        seen = f"{measured:.1f} Gbit/s between nodes; the links' speed is not known"
        return Verdict("links", OK, f"{seen} (--expected-gbit)")
    seen = f"{measured:.1f} of {expected:g} Gbit/s ({source}) between nodes"
    for verdict, bound in ((FAIL, BROKEN), (WARN, POOR)):
        if measured < bound * expected:
            remedy = (
                "is it the right interface? OMPI_MCA_btl_tcp_if_include, NCCL_SOCKET_IFNAME; "
                "one TCP stream rarely passes 30 Gbit/s, RDMA does (ibstat, ucx_info)"
            )
            if gpus:
                verdict, seen = WARN, f"{seen} by MPI, which carries no gradients"
            return Verdict("links", verdict, seen, remedy, machine=True)
    return Verdict("links", OK, seen)


def judge_sum_link(summed: Timed, expected: float | None, source: str) -> Verdict:
    """Judge NCCL's sum among all nodes against one link of a node; it may use several of them."""
    seen = f"{_bytes(summed.size)} in {_time(summed.seconds)}: {summed.gbit:.1f} Gbit/s bus"
    seen += f", {summed.ranks} ranks"
    if expected is None:
        return Verdict("NCCL between nodes", OK, f"{seen}; the links' speed is not known")
    seen += f", of {expected:g} a link ({source})"
    for verdict, bound in ((FAIL, BROKEN), (WARN, POOR)):
        if summed.gbit < bound * expected:
            remedy = (
                "NCCL_DEBUG=INFO shows NET/IB where it uses InfiniBand: check ibstat, NCCL_IB_HCA, "
                "NCCL_SOCKET_IFNAME"
            )
            return Verdict("NCCL between nodes", verdict, seen, remedy, machine=True)
    return Verdict("NCCL between nodes", OK, seen)


def judge_peers(summed: Timed) -> Verdict:
    """Judge NCCL's sum in the slowest node."""
    seen = f"{_bytes(summed.size)} in {_time(summed.seconds)}: {summed.gbit:.1f} Gbit/s bus"
    seen += f", {summed.ranks} GPUs"
    if summed.gbit < PEERS:
        remedy = (
            "do the GPUs reach each other? nvidia-smi topo -m; each rank must see all of its "
            "node's (no --gpus-per-task); NCCL_DEBUG=INFO shows P2P, or SHM and NET where not"
        )
        return Verdict("NCCL, in a node", WARN, seen, remedy)
    return Verdict("NCCL, in a node", OK, seen)


def judge_slow(
    check: str,
    work: Mapping[int, float],
    swaps: Mapping[int, Mapping[int, float]],
    hosts: Mapping[int, str],
) -> Verdict:
    """Name the slowest rank by its share of fixed work, and by its exchanges with both sides."""
    if len(work) < 2:
        return Verdict(check, SKIP, "one rank")
    slowest, factor = stands_out(work)
    adding = f"{name_ranks([slowest], hosts)} takes {factor:.1f} times the others' median to add up"
    found = [adding] if factor >= SLOW else []
    best = best_times(swaps)
    pair, pair_factor = stands_out(best) if len(best) > 2 else (slowest, 1.0)
    if pair_factor >= SLOW:
        found.append(
            f"{name_ranks([pair], hosts)} takes {pair_factor:.1f} times the others' median to "
            "exchange 1 MB, with either neighbour"
        )
    if found:
        remedy = "look what else runs there, at its clocks and cable; drain the node if it stays so"
        return Verdict(check, WARN, "; ".join(found), remedy)
    speed = ""
    if swaps and flatten(swaps.values()):
        speed = (
            f"; 1 MB pairs {exchange_gbit(statistics.median(flatten(swaps.values()))):.1f} Gbit/s"
        )
    return Verdict(check, OK, f"{adding}{speed}")


def judge_slow_node(swaps: Mapping[int, Mapping[int, float]], hosts: Mapping[int, str]) -> Verdict:
    """Name the slowest node by its exchanges with two other nodes."""
    best = best_times(swaps)
    if len(best) < 2:
        return Verdict("slowest node", SKIP, "one node")
    if len(best) == 2:
        gbit = exchange_gbit(max(best.values()))
        return Verdict("slowest node", OK, f"two nodes: {gbit:.1f} Gbit/s between them")
    slowest, factor = stands_out(best)
    seen = f"{hosts[slowest]}: {factor:.1f} times the others' median to exchange 1 MB"
    if factor >= SLOW:
        remedy = "look at its link (ethtool, ibstat, cable, switch port); drain it if it stays so"
        return Verdict("slowest node", WARN, seen, remedy)
    return Verdict("slowest node", OK, seen)


def _bytes(size: int) -> str:
    return f"{size >> 20} MB" if size >= 2**20 else f"{size >> 10} KB"


def _time(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.1f} s"
