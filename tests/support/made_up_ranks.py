"""256 ranks on 32 nodes, made up: what is known of each, and the kinds of verdicts."""

from __future__ import annotations

from hvd_utils.preflight.verdict import Verdict

RANKS = range(256)
HOSTS = {rank: f"node{rank // 8:02d}" for rank in RANKS}
LOCAL = {rank: (rank % 8, 8) for rank in RANKS}


def everywhere(fact: dict, **odd: dict) -> dict[int, dict]:
    """``fact`` on all ranks, changed on those that are named r3 and so on."""
    facts = {rank: dict(fact) for rank in RANKS}
    for name, change in odd.items():
        facts[int(name[1:])] |= change
    return facts


def kinds(verdicts: list[Verdict]) -> dict[str, str]:
    return {verdict.check: verdict.verdict for verdict in verdicts}
