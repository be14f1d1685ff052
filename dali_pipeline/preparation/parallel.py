"""The same function on many inputs, in all cores: for work on files, not for training."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from hvd_utils.failure import BadInput

Task = TypeVar("Task")
Result = TypeVar("Result")


def parallel_map(
    function: Callable[[Task], Result], tasks: Sequence[Task], processes: int
) -> Iterator[Result]:
    """Yield ``function(task)`` for every task, in order, computed by ``processes`` processes.

    When this process fails or is interrupted, the others end at once: ``function`` has to leave
    nothing half done under its final name. Raises BadInput where one of them is killed.
    """
    if processes == 1:
        yield from map(function, tasks)
        return
    executor = ProcessPoolExecutor(
        processes,
        multiprocessing.get_context("forkserver"),  # forking a process with threads is not safe
        initializer=_begin,
    )
    try:
        yield from executor.map(function, tasks)
    except BrokenProcessPool as error:
        raise BadInput(
            "a process was killed, perhaps for memory: lower --processes and start again; "
            "what is done stays"
        ) from error
    except BaseException:  # KeyboardInterrupt, and GeneratorExit where our caller failed
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _begin() -> None:
    """Leave Ctrl-C to the parent, but do not outlive it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
