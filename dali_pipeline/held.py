"""Batches in memory that is not PyTorch's, held until the GPU has read them.

The host queues steps ahead of the GPU. PyTorch's own memory is used again in the order of that
queue; DALI's is DALI's again when the host lets go of the batch, while the step that reads it may
still be waiting in the queue.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch


class Held:
    """The batches of one pipeline that a GPU may still read; nobody waits for it."""

    def __init__(self) -> None:
        self._latest: torch.Tensor | None = None
        self._earlier: deque[tuple[Any, torch.Tensor]] = deque()  # each behind its mark, in order

    def hold(self, batch: torch.Tensor) -> torch.Tensor:
        """Return ``batch``, held from now on; whoever read the one before has been queued by now.

        Lets go of those that the GPU has passed.
        """
        if self._latest is not None:
            self._earlier.append((self._mark(), self._latest))
        self._latest = batch
        while self._earlier and self._earlier[0][0].query():
            self._earlier.popleft()
        return batch

    def _mark(self) -> Any:
        event = torch.cuda.Event()
        event.record()
        return event
