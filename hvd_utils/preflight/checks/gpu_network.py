"""Time and judge sums on GPUs by NCCL, in a node and among all ranks. On rank 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hvd_utils.preflight.checks.network_verdicts import Timed, judge_peers, judge_sum_link
from hvd_utils.preflight.coordinator import Coordinator

BYTES = 100_000_000  # of one sum: ResNet-50's gradients are 102 MB
REPETITIONS = 10


def check_gpu_sums(
    lead: Coordinator,
    nodes: Callable[[], list[list[int]]],
    add: Callable[..., None],
    limit: float,
    expected: tuple[float | None, str],
) -> Timed | None:
    """Time the sums in each node and among all ranks, and add verdicts; return the latter.

    ``limit`` is of each, seconds; ``expected`` the speed of a node's link and who says so. None
    where they could not be summed: a verdict then tells why.
    """
    found = nodes()
    shared = [ranks for ranks in found if len(ranks) > 1]
    if shared:
        inside = _measure(lead, shared, "NCCL, in a node", limit, add)
        if inside is None:  # among all it would not work either
            return None
        add(judge_peers(inside))
        if len(found) == 1:
            return inside
    if len(lead.alive) < 2:  # the others are silent, which is told
        return None
    between = _measure(lead, [lead.alive], "NCCL between nodes", limit, add)
    if between is not None:
        add(judge_sum_link(between, *expected))
    return between


def _measure(
    lead: Coordinator,
    groups: Sequence[Sequence[int]],
    what: str,
    limit: float,
    add: Callable[..., None],
) -> Timed | None:
    """Sum in all groups at once; return the slowest of them."""
    shared = len({lead.hosts[rank] for rank in groups[0]}) == 1
    first = [ranks[0] for ranks in groups]
    met = lead.ask("child", limit, what, first, job="meet", shared=shared)
    add(*met.trouble(what, lead.hosts))
    if set(met.facts) != set(first):
        return None
    ranks = [rank for group in groups for rank in group]
    answers = lead.ask(
        "child", limit, what, ranks, job="sum", groups=list(map(list, groups)),
        meetings=[met.facts[rank] for rank in first], repetitions=REPETITIONS, size=BYTES,
    )  # fmt: skip
    add(*answers.trouble(what, lead.hosts))
    if set(answers.facts) != set(ranks):
        return None
    slowest = max(answers.facts, key=answers.facts.get)
    size = next(len(group) for group in groups if slowest in group)
    return Timed(BYTES, size, answers.facts[slowest])
