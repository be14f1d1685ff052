"""Prefetch: make items in a thread, ahead of the consumer."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
_END: Any = object()


def prefetched(items: Iterable[Item], depth: int) -> Generator[Item]:
    """Yield ``items`` in order, each made in a thread, up to ``depth`` items ahead of the consumer.

    An exception is raised in the consumer where its item would have been. Closing the iterator
    ends the thread after the item that it is at, without waiting for that.
    """
    iterator = iter(items)
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        pending = deque(pool.submit(next, iterator, _END) for _ in range(depth))
        while (item := pending.popleft().result()) is not _END:
            pending.append(pool.submit(next, iterator, _END))
            yield item
    finally:
        # Python may collect this in any thread, also in one that is being started: that one holds
        # a lock without which no other thread ends, and would wait for ever.
        pool.shutdown(wait=False, cancel_futures=True)
