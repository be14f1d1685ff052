"""Copy batches to the device without making the host wait."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch

from hvd_utils.config.settings import Settings


def upload(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return ``array`` on ``device``; a GPU copies it later, from pinned memory."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def current_stream(device: torch.device) -> int | None:
    """Return the CUDA stream that this thread queues on, as DALI takes it; None on a CPU.

    DALI takes PyTorch's 0, the default stream, for none at all, and then the host waits for each
    batch. CUDA's other name for that stream is 1 (``cudaStreamLegacy``).
    """
    return torch.cuda.current_stream(device).cuda_stream or 1 if device.type == "cuda" else None


def in_16_bits(settings: Settings) -> bool:
    """Return whether a GPU's batches are float16, as the model takes them.

    Mixed images are rounded after they are mixed. DALI has no bfloat16.
    """
    return settings.precision == "fp16" and not (settings.mixup or settings.cutmix)


class HeldBatches:
    """The batches of one pipeline that a GPU may still read.

    The host queues steps ahead of the GPU. PyTorch reuses its own memory in the order of that
    queue. DALI reuses the memory of a batch as soon as the host drops it, while the step that reads
    it may still be in the queue. So each batch is kept here until the GPU has passed it.
    """

    def __init__(self) -> None:
        self._latest: torch.Tensor | None = None
        self._earlier: deque[tuple[Any, torch.Tensor]] = deque()  # each behind its mark, in order

    def hold(self, batch: torch.Tensor) -> torch.Tensor:
        """Return ``batch``, held from now on; all reads of the one before are queued by now.

        Lets go of those that the GPU has passed.
        """
        if self._latest is not None:
            self._earlier.append((self._mark(), self._latest))
        self._latest = batch
        while self._earlier and self._earlier[0][0].query():
            self._earlier.popleft()
        return batch

    def clear(self) -> None:
        """Let go of all of them, once the GPU has passed them; the host waits."""
        try:
            if self._latest is not None:
                self._earlier.append((self._mark(), self._latest))
            for mark, _ in self._earlier:
                mark.synchronize()
        finally:
            self._latest = None
            self._earlier.clear()

    def _mark(self) -> Any:
        event = torch.cuda.Event()
        event.record()
        return event
