"""Find the rank that hangs by comparing the heartbeats of all ranks at two moments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hvd_utils.faults.heartbeat import FINISHED, WAITING, Heartbeat

SHOWN = 3  # hanging ranks by name
STILL = 0.75  # of the timeout without progress, and a rank counts as hanging with the others


@dataclass(frozen=True)
class Diagnosis:
    """Why no step is finished, as half a sentence, and the rank that prints it."""

    reason: str
    speaker: int


def diagnose(
    me: Heartbeat,
    size: int,
    before: Mapping[int, Heartbeat],
    after: Mapping[int, Heartbeat],
    timeout: float,
) -> Diagnosis | None:
    """Return the verdict of rank ``me``, which made no progress for ``timeout`` seconds.

    None where another rank still advances, so that waiting may help. A rank is silent if its
    report is the same in both looks: it is stopped, dead or cut off. If none is, those hang that do
    not wait for the others. Clocks of hosts are never compared.
    """
    others = {rank: report for rank, report in after.items() if rank != me.rank}
    heard = {rank: report for rank, report in others.items() if report != before.get(rank)}
    if any(r.doing == FINISHED or r.idle < STILL * timeout for r in heard.values()):
        return None
    silent = {
        rank: report
        for rank, report in others.items()
        if rank not in heard and report.doing != FINISHED
    }
    alive = {**heard, me.rank: me}
    at_work = {rank: report for rank, report in alive.items() if report.doing != WAITING}
    unseen = sorted(set(range(size)) - set(others) - {me.rank})
    if silent:
        reason = _name({r: _last_seen(report, me.changed) for r, report in silent.items()}, silent)
    elif at_work:
        reason = _name({r: _place(report) for r, report in at_work.items()}, at_work)
    elif unseen:
        reason = (
            f"which rank hangs cannot be told: rank {me.rank} ({me.host}) sees no report of "
            f"{_list_ranks(unseen)} in the run's folder, which must be one that all hosts share"
        )
    else:
        reason = "all ranks wait for one another: a network path may be cut"
    trusted = set(alive) - set(silent or at_work)
    return Diagnosis(reason, min(trusted or alive))


def _name(what: Mapping[int, str], reports: Mapping[int, Heartbeat]) -> str:
    ranks = sorted(what)
    named = [f"rank {r} ({reports[r].host}) hangs: {what[r]}" for r in ranks[:SHOWN]]
    more = f", and {len(ranks) - SHOWN} more" if len(ranks) > SHOWN else ""
    return ", ".join(named) + more


def _place(report: Heartbeat) -> str:
    return f"{report.doing} at step {report.step}"


def _last_seen(report: Heartbeat, now: float) -> str:
    """``now`` is of the same clock as ``changed``: the file system's, if it is a shared one."""
    silence = f" for {now - report.changed:.0f} s" if now > report.changed else ""
    return f"not heard of{silence}, last seen {_place(report)}"


def _list_ranks(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:SHOWN]))
    more = f" and {len(ranks) - SHOWN} more" if len(ranks) > SHOWN else ""
    return f"rank{'s' if len(ranks) > 1 else ''} {shown}{more}"
