"""Threads that read from a storage: as many as there are requests in flight.

They are daemons, unlike those of ``concurrent.futures``: a process that ends does not wait for what
it asked a server that does not answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any


class Workers:
    """Runs what is submitted, first come first served, in up to ``most`` threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._idle, self._started = 0, 0
        self._queue: SimpleQueue = SimpleQueue()

    def submit(self, work: Callable, *arguments: Any) -> Future:
        """Run ``work`` in a thread; return its future result."""
        future: Future = Future()
        self._queue.put((future, work, arguments))
        with self._lock:
            start = self._idle < self._queue.qsize() and self._started < self._most
            self._started += start
        if start:
            threading.Thread(target=self._run, name="storage", daemon=True).start()
        return future

    def _run(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            future, work, arguments = self._queue.get()
            with self._lock:
                self._idle -= 1
            try:
                future.set_result(work(*arguments))
            except BaseException as error:
                future.set_exception(error)
            del future, work, arguments  # else the last result stays in memory
