"""Messages between two ranks with a time limit, so that no rank waits for a dead one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from mpi4py import MPI

TAG = 11


class Mailbox:
    """Sends and takes messages of one rank; waiting sleeps, since ranks may share a core.

    ``crowd`` is how many ranks share this node's cores: the more, the longer the naps.
    """

    def __init__(self, comm: MPI.Comm, crowd: int) -> None:
        self._comm = comm
        self._sent: list[MPI.Request] = []
        self._longest_nap = min(0.2, max(0.01, 0.0005 * crowd))

    def send(self, rank: int, message: Any) -> None:
        """Send ``message`` (anything that pickles) without waiting for its arrival."""
        self._sent = [request for request in self._sent if not request.Test()]
        self._sent.append(self._comm.isend(message, dest=rank, tag=TAG))

    def take(self) -> tuple[int, Any] | None:
        """Return sender and text of a message that has arrived, None where none has."""
        status = MPI.Status()
        if not self._comm.Iprobe(source=MPI.ANY_SOURCE, tag=TAG, status=status):
            return None
        source = status.Get_source()
        return source, self._comm.recv(source=source, tag=TAG)

    def flush(self, until: float) -> None:
        """Wait until what was sent has left, or until the monotonic time ``until``."""
        self.wait(lambda: all(request.Test() for request in self._sent), until)

    def wait(self, happened: Callable[[], bool], until: float) -> bool:
        """Wait until something happened; return False at the monotonic time ``until``."""
        nap = 0.001
        while not happened():
            if time.monotonic() > until:
                return False
            time.sleep(nap)
            nap = min(2 * nap, self._longest_nap)
        return True
