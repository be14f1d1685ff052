"""The parts of this process's steps: input, computing, waiting for others."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Protocol

from hvd_utils.faults.heartbeat import COMPUTING, READING, WAITING

PARTS = ("data", "compute", "allreduce")
_PART_OF = {READING: 0, COMPUTING: 1, WAITING: 2}  # any other occupation is not counted


def part_of(doing: str) -> str | None:
    """Return which of ``PARTS`` an occupation counts as; None for any other."""
    return PARTS[_PART_OF[doing]] if doing in _PART_OF else None


class Stopwatch(Protocol):
    """Adds up the seconds that this process spends in each of ``PARTS``."""

    def switch_to(self, doing: str) -> None:
        """Begin to count for ``doing``, one of rank_files' names; any other stops the watch."""

    def read(self) -> list[float]:
        """Return the seconds of each of ``PARTS`` so far."""


def make_stopwatch(device: Any) -> Stopwatch:
    """Return the stopwatch for steps on ``device``, a torch.device."""
    return DeviceStopwatch() if device.type == "cuda" else HostStopwatch()


class HostStopwatch:
    """Counts this thread's time, where the processor does the computing itself."""

    def __init__(self) -> None:
        self._seconds = [0.0, 0.0, 0.0]
        self._part: int | None = None
        self._since = 0.0

    def switch_to(self, doing: str) -> None:
        """Begin to count for ``doing``."""
        now = time.perf_counter()
        if self._part is not None:
            self._seconds[self._part] += now - self._since
        self._part, self._since = _PART_OF.get(doing), now

    def read(self) -> list[float]:
        """Return the seconds of each of ``PARTS`` so far."""
        return list(self._seconds)


class DeviceStopwatch:
    """Counts a GPU's time: the host queues work and runs ahead, so its own clock says little.

    Each mark is an event in the queue of the current stream, which the device passes when all
    before it is done. What lies between two marks is then what delayed the device: reading only
    where the images came after the step before was over, waiting only where it outlasts backprop.
    Nobody waits for an event; it is read once the device has passed it, a step later.
    """

    def __init__(self) -> None:
        self._seconds = [0.0, 0.0, 0.0]
        self._marks: deque[tuple[int | None, Any]] = deque()  # what begins at each, oldest first
        self._unused: list[Any] = []

    def switch_to(self, doing: str) -> None:
        """Begin to count for ``doing``."""
        event = self._unused.pop() if self._unused else self._new_event()
        event.record()
        self._marks.append((_PART_OF.get(doing), event))

    def read(self) -> list[float]:
        """Return the seconds of each of ``PARTS`` as far as the device has come."""
        while len(self._marks) > 1 and self._marks[1][1].query():
            part, begin = self._marks.popleft()
            if part is not None:
                self._seconds[part] += begin.elapsed_time(self._marks[0][1]) / 1000
            self._unused.append(begin)
        return list(self._seconds)

    def _new_event(self) -> Any:
        import torch  # here, so that reading and showing timings needs no torch

        return torch.cuda.Event(enable_timing=True)
