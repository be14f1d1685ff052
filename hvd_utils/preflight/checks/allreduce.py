"""Time allreduces and exchanges: within a node, between nodes, among all ranks."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from hvd_utils.horovod_backend.node import unused_gpu
from hvd_utils.preflight.checks.gpu_network import check_gpu_sums
from hvd_utils.preflight.checks.network import SIZES, exchange_gbit, flatten, ring
from hvd_utils.preflight.checks.network_verdicts import (
    Timed,
    judge_link,
    judge_slow,
    judge_slow_node,
    judge_sums,
)
from hvd_utils.preflight.coordinator import Answers, Coordinator
from hvd_utils.preflight.verdict import SKIP, Verdict

QUICK_SIZE = 2**26  # bytes


class NetworkCheck:
    """The timed sums and exchanges of one preflight, on rank 0.

    ``nodes`` returns the ranks of each node that still answer; ``add`` takes the verdicts.
    """

    def __init__(
        self,
        lead: Coordinator,
        options: Namespace,
        nodes: Callable[[], list[list[int]]],
        add: Callable[..., None],
    ) -> None:
        self.lead, self.options = lead, options
        self.quick = options.quick
        self._nodes, self._add = nodes, add
        self.by_nccl: Timed | None = None  # the sum on GPUs, if it was measured

    def run(self) -> list[Timed]:
        """Make the checks; return MPI's sums over all ranks, none where there is one rank."""
        hosts = self.lead.hosts
        ready = self.lead.ask("ready", 5, "allreduce")
        self._add(*ready.trouble("allreduce", hosts))
        if len(self.lead.alive) < 2 or not ready.facts:
            self._add(Verdict("allreduce", SKIP, "one rank"))
            return []
        spare = min(fact["bytes"] for fact in ready.facts.values())
        all_sums, note = self._measure("all", lambda: [self.lead.alive], self._limit(8, 4), spare)
        self._add(judge_sums("allreduce, all ranks", all_sums, note))
        if self._shared_nodes() and len(self._nodes()) > 1:
            sums, note = self._measure("node", self._shared_nodes, self._limit(5, 3), spare)
            self._add(judge_sums("allreduce, in a node", sums, note))
        expected = self._expected(ready)
        gpus = self._on_gpus()
        self._slowest(all_sums, expected, gpus)
        if gpus:
            limit = 60
            self.by_nccl = check_gpu_sums(self.lead, self._nodes, self._add, limit, expected)
        return all_sums

    def _on_gpus(self) -> bool:
        """Whether the ranks train on GPUs; where there is no sign of one, no child is asked."""
        if self.lead.here.settings.device == "cpu" or not unused_gpu(Path("/"), os.environ):
            return False
        answers = self.lead.ask("child", 60, "devices", job="device")
        return set(answers.facts.values()) == {"cuda"}  # else the checks of GPUs tell

    def _expected(self, ready: Answers) -> tuple[float | None, str]:
        """Return the speed of a node's link, Gbit/s, and who says so."""
        if self.options.expected_gbit:
            return self.options.expected_gbit, "--expected-gbit"
        speeds = [fact["gbit"] for fact in ready.facts.values() if fact["gbit"]]
        return min(speeds, default=None), "what its devices say"

    def _shared_nodes(self) -> list[list[int]]:
        return [ranks for ranks in self._nodes() if len(ranks) > 1]

    def _measure(
        self, group: str, choose: Callable[[], list[list[int]]], seconds: float, spare: int
    ) -> tuple[list[Timed], str]:
        """Time sums of growing size over the groups of ranks that ``choose`` returns.

        Until the time is over; when a rank stops answering, the others continue without it.
        """
        until = time.monotonic() + min(seconds, self.lead.time_left / 3)
        sums: list[Timed] = []
        for size in SIZES:
            if self.quick and size > QUICK_SIZE:
                break
            if size > spare:
                return sums, f"no larger: memory is short ({spare >> 20} MB a rank)"
            guess = 0.0
            if sums:
                guess = sums[-1].seconds * max(1, size / sums[-1].size)
            left = until - time.monotonic()
            repetitions = int(min(10, left / guess / 3)) if guess else 3  # a third: guesses err
            if repetitions < 1:
                return sums, "no larger: it would take too long"
            groups = choose()
            timed = self._timed(group, groups, size, repetitions, max(3.0, left), not sums)
            if timed is None and choose() != groups:
                until += max(3.0, left)  # which the silent one took
                timed = self._timed(group, choose(), size, repetitions, max(3.0, left), not sums)
            if timed is None:
                return sums, f"no larger: {size:,} bytes were not summed in time"
            sums.append(timed)
        return sums, ""

    def _timed(
        self,
        group: str,
        groups: list[list[int]],
        size: int,
        repetitions: int,
        limit: float,
        first: bool,
    ) -> Timed | None:
        """Sum in all ``groups`` at once; return the slowest of them, None if one was not done.

        If it is the ``first`` sum, a failure is a verdict.
        """
        alive = self.lead.alive
        member = {rank: ranks for ranks in groups for rank in ranks}
        if not member:
            return None
        answers = self.lead.ask("allreduce", limit, "allreduce", list(member), group=group,
                                groups=groups, size=size, repetitions=repetitions)  # fmt: skip
        if answers.errors and first and self.lead.alive == alive:  # else that rank is the cause
            self._add(*answers.trouble(f"allreduce of {size >> 10} KB", self.lead.hosts))
        if answers.errors or set(answers.facts) != set(member):
            return None
        slowest = max(answers.facts, key=answers.facts.get)
        return Timed(size, len(member[slowest]), answers.facts[slowest])

    def _slowest(self, sums: list[Timed], expected: tuple[float | None, str], gpus: bool) -> None:
        hosts, nodes = self.lead.hosts, self._nodes()
        work = self.lead.ask("work", 10, "adding up", repetitions=self._limit(4000, 2000)).facts
        rounds = [[pair for pairs in each for pair in pairs] for each in _together(nodes)]
        swaps = self.lead.ask("exchange", 8, "exchanges in a node", rounds=rounds, repetitions=5)
        self._add(*swaps.trouble("exchanges", hosts))
        self._add(judge_slow("slowest rank", work, swaps.facts, hosts))
        if len(nodes) < 2:
            return
        leaders = [ranks[0] for ranks in nodes]
        between = self.lead.ask("exchange", 8, "exchanges between nodes", leaders,
                                rounds=ring(leaders), repetitions=5)  # fmt: skip
        self._add(*between.trouble("exchanges", hosts))
        self._add(judge_slow_node(between.facts, hosts))
        measured = [exchange_gbit(seconds) for seconds in flatten(between.facts.values())]
        best = max([min(measured)] if measured else [], default=None)
        if sums:
            best = max(best or 0.0, sums[-1].gbit)
        self._add(judge_link(best, *expected, len(nodes), gpus=gpus))

    def _limit(self, seconds: float, quick: float) -> float:
        return quick if self.quick else seconds


def _together(nodes: list[list[int]]) -> list[list[list[tuple[int, int]]]]:
    """Return the rounds of all nodes' rings, those with the same number side by side."""
    rings = [ring(ranks) for ranks in nodes]
    return [
        [one[number] for one in rings if number < len(one)]
        for number in range(max(map(len, rings), default=0))
    ]
