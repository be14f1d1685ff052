"""Map a function over many inputs in all cores; for work on files, not for training."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, resource_tracker
from typing import Generic, TypeVar

from hvd_utils.cli.errors import BadInput

Task = TypeVar("Task")
Result = TypeVar("Result")

WAITING = 4  # tasks of each process that are given to it or done


def parallel_map(
    function: Callable[[Task], Result], tasks: Iterable[Task], processes: int
) -> Iterator[Result]:
    """Yield ``function(task)`` for every task, in order, computed by ``processes`` processes.

    Tasks are taken as they are needed, so a generator of many is never whole in memory.

    When this process fails or is interrupted, the others end at once: ``function`` has to leave
    nothing half done under its final name. Raises BadInput where one of them is killed.
    """
    if processes == 1:
        yield from map(function, tasks)
        return
    _start_server()
    executor = ProcessPoolExecutor(
        processes,
        multiprocessing.get_context("forkserver"),  # forking a process with threads is not safe
        initializer=_begin,
    )
    try:
        coming: deque[Future[Result]] = deque()
        for task in tasks:  # executor.map would take all of them at once
            coming.append(executor.submit(_Interruptible(function), task))
            if len(coming) >= WAITING * processes:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    except BrokenProcessPool as error:
        raise BadInput(
            "a process was killed, perhaps for memory: lower --processes and start again; "
            "what is done stays"
        ) from error
    except BaseException:  # KeyboardInterrupt, and GeneratorExit where our caller failed
        for process in multiprocessing.active_children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGINT)
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _start_server() -> None:
    """Start the process that forks the others; none sees Ctrl-C before it is ready for it."""
    resource_tracker.ensure_running()  # which would let the signal through again
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


class _Interruptible(Generic[Task, Result]):
    """A function that SIGINT interrupts in a process that survives: the pool stays whole."""

    interrupted = at_work = False  # of this process

    def __init__(self, function: Callable[[Task], Result]) -> None:
        self._function = function

    def __call__(self, task: Task) -> Result:
        _Interruptible.at_work = True
        try:
            if _Interruptible.interrupted:
                raise KeyboardInterrupt
            return self._function(task)
        finally:
            _Interruptible.at_work = False

    @staticmethod
    def interrupt(number: int, frame: object) -> None:
        """Handle SIGINT."""
        _Interruptible.interrupted = True
        if _Interruptible.at_work:
            raise KeyboardInterrupt


def _begin() -> None:
    """Take Ctrl-C, which was held back so far; do not outlive the parent however it ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, _Interruptible.interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
