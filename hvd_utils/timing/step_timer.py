"""Time the steps of all ranks: a stopwatch on each, and one small allgather a window."""

from __future__ import annotations

import numpy as np

from hvd_utils.horovod_backend.async_ops import AsyncGather
from hvd_utils.horovod_backend.world import World
from hvd_utils.paper.logical_workers import share
from hvd_utils.timing.step_times import StepTimes, make_step_times
from hvd_utils.timing.stopwatch import make_stopwatch
from hvd_utils.timing.stragglers import Stragglers, lines


class StepTimer:
    """Measures this rank's steps and learns of the others'.

    What was measured up to a window's last step but one is sent before its last step, and is there
    after it: nobody waits for it. All ranks have to ``send`` and ``receive`` at the same steps.
    """

    def __init__(self, world: World, workers: int) -> None:
        """Begin; ``workers`` are the k logical ones; collective."""
        self._stopwatch = make_stopwatch(world.device)
        self._exchange = AsyncGather(world.size, "pace.seconds")
        self._hosts = world.gather(world.host)
        loads = [len(share(workers, rank, world.size)) for rank in range(world.size)]
        self._ranks = Stragglers(self._hosts, loads)
        self._is_root = world.is_root
        self._steps = 0  # since the last time that this rank sent
        self._sent: np.ndarray = np.zeros(3)  # seconds in all that it has sent

    def switch_to(self, doing: str) -> None:
        """Tell what this rank turns to, by one of rank_files' names."""
        self._stopwatch.switch_to(doing)

    def count_step(self) -> None:
        """Count a step that was made."""
        self._steps += 1
        self._stopwatch.read()  # lets go of what a GPU has done

    def send(self) -> None:
        """Send the others this rank's seconds per step since the last time; does not wait."""
        seconds = np.array(self._stopwatch.read())
        self._exchange.begin([self._steps, *(seconds - self._sent)])
        self._sent, self._steps = seconds, 0

    def receive(self, step: int) -> tuple[StepTimes | None, list[str]]:
        """Return all ranks' timings (rank 0) and lines to show about them, ``step`` being the last.

        None if nothing was sent since the last time, as before the first window's end.
        """
        rows = self._exchange.end()
        if rows is None or not self._is_root:
            return None, []
        steps = int(rows[0, 0])
        seconds = rows[:, 1:] / steps
        change = self._ranks.update(step - 1, steps, seconds)
        timings = make_step_times(seconds, change.slow[0] if change.slow else None)
        return timings, lines(change, step - 1, self._hosts)
