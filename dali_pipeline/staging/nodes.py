"""The nodes of a launch: one process a node works, the others wait without using a core."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

LAUNCHED_BY_MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK")
POLL_SECONDS = 0.1


class Nodes:
    """Where this process is among those of an mpirun; without one, it is alone."""

    def __init__(self) -> None:
        """Start MPI, if it launched this process; collective."""
        self.host = socket.gethostname()
        self.rank = 0
        self.works = True  # whether this process works for its node
        self._world = None
        if any(name in os.environ for name in LAUNCHED_BY_MPI):
            os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
            from mpi4py import MPI

            self._world = MPI.COMM_WORLD
            self.rank = self._world.rank
            self.works = self.gather(self.host).index(self.host) == self.rank
            self._workers = self._world.Split(int(self.works), self.rank)

    @property
    def is_root(self) -> bool:
        """Whether this process speaks for all; it is one of those that work."""
        return self.rank == 0

    def tell(self, value: Any) -> Any:
        """Return rank 0's ``value`` on every process that works; collective among them."""
        if self._world is None:
            return value
        _wait(self._workers)
        return self._workers.bcast(value)

    def gather(self, value: Any) -> list[Any]:
        """Return every process's ``value``, in the order of ranks, on all; collective."""
        if self._world is None:
            return [value]
        _wait(self._world)
        return self._world.allgather(value)


def _wait(communicator: Any) -> None:
    """Wait until all have come: asleep, since MPI's own waiting takes a whole core."""
    arrival = communicator.Ibarrier()
    while not arrival.Test():
        time.sleep(POLL_SECONDS)
