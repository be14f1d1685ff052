"""A few numbers of every rank, sent to all while a step is made, so that nobody waits for them."""

from __future__ import annotations

from collections.abc import Sequence

import horovod.torch as hvd
import numpy as np
import torch


class Exchange:
    """One allgather under way: ``begin`` before a step, ``end`` after it, by all ranks alike."""

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

        A lost rank is not reported from here: the next sum of gradients is where that is handled.
        """
        own, self._own = self._own, None
        if own is None or self._size == 1:
            return None if own is None else own.numpy()
        try:
            return hvd.synchronize(self._handle).numpy()
        except hvd.HorovodInternalError:
            return None
