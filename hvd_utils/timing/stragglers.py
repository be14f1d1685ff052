"""Find stragglers: ranks that are slow in several windows in a row."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SLOWER = 1.2  # times the usual own time of a step: then a rank is slow in a window
LONG = 3  # windows in a row, before it is said, and before it is said to be over
LONG_STEPS = 30  # steps that these windows have at least, for those of a step or two tell little

DOING = {"data": "reading images", "compute": "computing"}


class Straggler(NamedTuple):
    """A rank that is slow for long."""

    rank: int
    host: str
    at: str  # data or compute
    ratio: float  # its own time in the last window, by the usual one
    since: int  # step after which it became slow


class Change(NamedTuple):
    """What a window told: who is slow for long, slowest first, who of them is new, who no more."""

    slow: list[Straggler]
    new: list[Straggler]
    over: list[int]  # ranks


class Stragglers:
    """Follows all ranks from window to window; ``loads`` is how many logical workers each has."""

    def __init__(self, hosts: Sequence[str], loads: Sequence[int]) -> None:
        self._hosts, self._loads = hosts, np.array(loads)
        size = len(hosts)
        self._slow = np.zeros(size, bool)  # for long
        # Windows in a row in which a rank was otherwise, and the steps in them.
        self._windows: np.ndarray = np.zeros(size, int)
        self._steps: np.ndarray = np.zeros(size, int)
        self._since = np.zeros(size, int)
        # Seconds beyond the median over the ranks, of the last windows: one alone may mislead.
        self._beyond: deque[np.ndarray] = deque(maxlen=LONG)

    def update(self, step: int, steps: int, seconds: np.ndarray) -> Change:
        """Take in a window of ``steps`` that ended after ``step``.

        ``seconds`` has a row a rank: per step reading images, computing, and waiting for others.
        """
        ratios = own_ratios(seconds[:, 0] + seconds[:, 1], self._loads)
        otherwise = (ratios > SLOWER) != self._slow
        self._since[otherwise & (self._windows == 0) & ~self._slow] = step - steps
        self._windows = np.where(otherwise, self._windows + 1, 0)
        self._steps = np.where(otherwise, self._steps + steps, 0)
        turned = (self._windows >= LONG) & (self._steps >= LONG_STEPS)
        over = np.flatnonzero(turned & self._slow).tolist()
        self._slow ^= turned
        self._windows[turned] = 0
        self._steps[turned] = 0
        self._beyond.append(seconds - np.median(seconds, axis=0))
        ranks = sorted(np.flatnonzero(self._slow).tolist(), key=lambda rank: -ratios[rank])
        slow = [self._describe(rank, ratios[rank]) for rank in ranks]
        return Change(slow, [each for each in slow if turned[each.rank]], over)

    def _describe(self, rank: int, ratio: float) -> Straggler:
        data, compute, *_ = np.sum(self._beyond, axis=0)[rank]
        at = "data" if data > compute else "compute"
        return Straggler(
            rank, self._hosts[rank], at, round(float(ratio), 2), int(self._since[rank])
        )


def own_ratios(own: np.ndarray, loads: np.ndarray) -> np.ndarray:
    """Return each rank's own seconds by the usual ones, the median over all ranks.

    A rank with more logical workers than another may take longer in proportion; one with fewer
    need not be quicker, since nobody waits for it. Of an even number the lower median is taken, so
    that of two ranks the slower is held against the other.
    """
    usual = np.empty(len(own))
    for load in np.unique(loads):
        allowed = np.sort(own * np.maximum(1, load / loads))
        usual[loads == load] = allowed[(len(own) - 1) // 2]
    return own / np.maximum(usual, 1e-9)


def lines(change: Change, step: int, hosts: Sequence[str]) -> list[str]:
    """Return what to show of a change: who became slow, and who is so no more, a line each."""
    shown = []
    if change.new:
        first, *others = change.new
        here = sum(each.host == first.host for each in others)
        more = f"; slow with it: {len(others)} more, {here} of them on this host" if others else ""
        shown.append(
            f"warning: rank {first.rank} ({first.host}) is slow since step {first.since}, at "
            f"{DOING[first.at]}: its own part of a step takes {first.ratio:.1f} times the median"
            f"{more}"
        )
    if change.over:
        rank, *ranks = change.over
        more = f", nor are {len(ranks)} more" if ranks else ""
        shown.append(f"rank {rank} ({hosts[rank]}) is not slow any more at step {step}{more}")
    return shown
