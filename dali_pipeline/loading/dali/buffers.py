"""Reusable memory for batches: a buffer is free once no tensor uses it.

A fresh batch of 19 MB costs the kernel some 4,700 pages to map and clear, which was seen to take as
long as resizing its images.
"""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
import torch

KEPT = 8  # free buffers kept at most


class Buffers:
    """Gives out float32 tensors; for one thread, while any thread may let go of them."""

    def __init__(self) -> None:
        self._free: deque[np.ndarray] = deque(maxlen=KEPT)

    def take(self, length: int) -> torch.Tensor:
        """Return a vector of this length, with anything in it.

        The tensor's storage holds an array that nothing else refers to: a view of the memory, made
        for this one batch. The storage lives as long as any view of the tensor, or autograd, needs
        it. When it ends, so does the array, and its finalizer frees the memory.
        """
        memory = self._recycled(length)
        if memory is None:
            memory = np.empty(length, dtype=np.float32)
        lent = memory[:length]
        weakref.finalize(lent, self._free.append, memory).atexit = False
        return torch.from_numpy(lent)

    def _recycled(self, length: int) -> np.ndarray | None:
        for _ in range(len(self._free)):
            memory = self._free.popleft()
            if len(memory) >= length:
                return memory
            self._free.append(memory)
        return None
