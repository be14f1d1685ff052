"""CPU transforms after decoding: resize, mirror, crop, augment, normalise.

But for augmentation, this is what the GPU's graph does after decoding. PyTorch's uint8 resize is
several times as fast as DALI's on a CPU, and it is torchvision's own arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import torch
from torch.nn import functional

from dali_pipeline.loading.augment import erase, operate
from dali_pipeline.loading.dali.buffers import Buffers
from dali_pipeline.loading.interface import MEAN, STD
from dali_pipeline.sampling.crops import Windows
from dali_pipeline.sampling.plan import TrainingBatch


class CpuTransforms:
    """Transforms batches in ``threads`` threads; each image belongs to one thread.

    Images are float (images, 3, side, side), normalised, and channels-last in memory, which is how
    they are decoded and how convolutions are fastest.
    """

    def __init__(self, threads: int, largest: int, antialias: bool) -> None:
        """``largest`` is the largest side of any batch, pixels."""
        self._threads = threads
        self._largest = largest
        self._antialias = antialias
        self._pool = _single_threaded(threads)
        self._buffers = Buffers()
        # Of a whole row of pixels, so that PyTorch has long runs to work on.
        self._mean = (255 * torch.tensor(MEAN)).repeat(largest)
        self._scale = (1 / (255 * torch.tensor(STD))).repeat(largest)

    def training(self, crops: Sequence[torch.Tensor], batch: TrainingBatch) -> torch.Tensor:
        """Return the images of ``batch``, made of its uint8 (height, width, 3) crops."""

        def finish(image: int) -> torch.Tensor:
            pixels = self._resize(crops[image], (batch.side, batch.side))
            pixels = pixels.flip(1) if batch.flips[image] else pixels
            if batch.operations is None:
                return pixels
            kind, magnitude = (part[image] for part in batch.operations)
            return operate(pixels.permute(2, 0, 1), kind, magnitude).permute(1, 2, 0)

        return self._normalised(len(crops), batch.side, finish, batch.erased)

    def validation(
        self, images: Sequence[torch.Tensor], sizes: np.ndarray, corners: np.ndarray, side: int
    ) -> torch.Tensor:
        """Return the images, each resized to its size and cropped at its corner."""

        def finish(image: int) -> torch.Tensor:
            pixels = self._resize(images[image], tuple(sizes[image].tolist()))
            top, left = corners[image]
            return pixels[top : top + side, left : left + side]

        return self._normalised(len(images), side, finish)

    def _resize(self, pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Return uint8 (*size, 3), by PyTorch's kernel for channels-last pixels, its fastest."""
        resized = functional.interpolate(
            pixels[None].permute(0, 3, 1, 2),
            size=size,
            mode="bilinear",
            antialias=self._antialias,
            align_corners=False,
        )
        return resized.permute(0, 2, 3, 1)[0]

    def _normalised(
        self,
        count: int,
        side: int,
        finish: Callable[[int], torch.Tensor],
        erased: Windows | None = None,
    ) -> torch.Tensor:
        # Memory for the largest side, so that it serves all of them; what is not used costs none.
        room = self._buffers.take(count * self._largest**2 * 3)
        batch = room[: count * side**2 * 3].view(count, side, side, 3)
        mean, scale = self._mean[: side * 3], self._scale[: side * 3]

        def work(first: int) -> None:
            for image in range(first, count, self._threads):
                batch[image].copy_(finish(image)).flatten(1).sub_(mean).mul_(scale)
                if erased is not None:
                    erase(batch[image], erased, image)

        list(self._pool.map(work, range(self._threads)))
        return batch.permute(0, 3, 1, 2)


def _single_threaded(threads: int) -> ThreadPoolExecutor:
    """Return a pool in each of whose threads PyTorch uses one core, while here it keeps its own."""
    cores = torch.get_num_threads()
    started = Barrier(threads)

    def start() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # a thread's first look at the number makes it the thread's own
        started.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="finish")
    list(pool.map(lambda _: start(), range(threads)))
    torch.set_num_threads(cores)
    return pool
