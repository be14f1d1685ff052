"""Images per second of this launch, since a step."""

from __future__ import annotations

import time


class Throughput:
    """Counts from ``step`` on, until ``restart``; a step has ``minibatch`` images."""

    def __init__(self, step: int, minibatch: int) -> None:
        self._minibatch = minibatch
        self.restart(step)

    def restart(self, step: int) -> None:
        """Count from ``step`` and from now."""
        self._first, self._began = step, time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the last restart."""
        return time.monotonic() - self._began

    def images_per_second(self, step: int) -> float:
        """Return the mean rate of all workers up to ``step``."""
        return (step - self._first) * self._minibatch / self.seconds
