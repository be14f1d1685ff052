"""Small collectives that run beside a step: begin before it, end after it."""

from __future__ import annotations

from collections.abc import Sequence

import horovod.torch as hvd
import numpy as np
import torch

RankLost = hvd.HorovodInternalError  # raised by a collective when another rank has died


class AsyncSum:
    """A sum over all ranks, under way: every rank calls ``begin`` and ``end`` in turn."""

    def __init__(self, size: int, name: str) -> None:
        self._size, self._name = size, name

    def begin(self, values: torch.Tensor) -> None:
        """Start the sum of ``values``, element by element, in place; does not wait."""
        self._values = values
        if self._size > 1:
            self._handle = hvd.allreduce_async_(values, op=hvd.Sum, name=self._name)

    def end(self) -> torch.Tensor:
        """Wait for the sum and return it. Raises RankLost where a rank has died."""
        if self._size > 1:
            hvd.synchronize(self._handle)
        return self._values


class AsyncGather:
    """The values of all ranks, under way: every rank calls ``begin`` and ``end`` in turn."""

    def __init__(self, size: int, name: str) -> None:
        self._size, self._name = size, name
        self._own: torch.Tensor | None = None

    def begin(self, values: Sequence[float]) -> None:
        """Send this rank's values, as many as every rank's; does not wait."""
        self._own = torch.tensor([values], dtype=torch.float64)
        if self._size > 1:
            self._handle = hvd.allgather_async(self._own, name=self._name)

    def end(self) -> np.ndarray | None:
        """Return all ranks' values, a row each; None if none were sent, or a rank was lost.

        A lost rank is reported by the next sum of gradients, not here.
        """
        own, self._own = self._own, None
        if own is None or self._size == 1:
            return None if own is None else own.numpy()
        try:
            return hvd.synchronize(self._handle).numpy()
        except RankLost:
            return None
