"""Memory for batches, used again once nobody holds the batch that was in it.

A fresh batch of 19 MB costs the kernel some 4,700 pages to map and clear, which was seen to take as
long as resizing its images.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

KEPT = 8  # buffers at most: more are in use only where a consumer collects batches
_OURS = 3  # references to a free buffer: the list's, the loop's and getrefcount's own


class Buffers:
    """Gives out float32 tensors; for one thread."""

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []

    def take(self, length: int) -> torch.Tensor:
        """Return a vector of this length, with anything in it.

        A tensor made from a NumPy array holds the array for as long as any view of it, or autograd,
        needs the memory; so an array that only we refer to is free.
        """
        for array in self._arrays:
            if len(array) >= length and sys.getrefcount(array) == _OURS:
                return torch.from_numpy(array)[:length]
        self._arrays = [*self._arrays[1 - KEPT :], np.empty(length, dtype=np.float32)]
        return torch.from_numpy(self._arrays[-1])
