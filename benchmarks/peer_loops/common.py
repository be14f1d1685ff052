"""What all peers' loops have in common: options, model, data and meters.

Each takes the model, the cores and the images that ours takes; the rest is as their authors have
it: plain layout in memory, PyTorch's default SGD, PIL images through ``ImageFolder`` and
``DataLoader``, and a look at the loss in every step where they look.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from itertools import count, cycle
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader
from torch.utils.data.distributed import DistributedSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.harness.steady import add_span
from dali_pipeline.loading.interface import MEAN, STD
from hvd_utils.nn.models import build_model

POOL = 4  # different batches in memory
MEMORY_CLASSES = 1000

Batch = tuple[torch.Tensor, torch.Tensor]


def read_options() -> argparse.Namespace:
    """Return the options of the command line; start PyTorch with a thread for each core."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--batch-per-worker", type=int, default=16, help="images of a rank")
    parser.add_argument("--data", type=Path, help="folder with train/; none: noise in memory")
    parser.add_argument("--loader-workers", type=int, default=1, help="processes of a rank")
    add_span(parser)
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(1)
    return options


class Training:
    """A rank's training batches, for as many steps as are to be made, and how many classes."""

    def __init__(self, options: argparse.Namespace, rank: int, size: int) -> None:
        self._options = options
        self._last = options.warm_up + options.steps
        self.classes = MEMORY_CLASSES
        if options.data is not None:
            self._loader = self._read(options, rank, size)

    def model(self) -> nn.Module:
        """Return the network that all candidates train."""
        return build_model(self._options.model, self.classes, zero_gamma=True, seed=1).train()

    def __len__(self) -> int:
        return self._last

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches, one a step."""
        batches = self._loader if self._options.data else cycle(self._noise())
        for _, batch in zip(range(self._last), batches, strict=False):
            yield batch

    def _noise(self) -> Iterable[Batch]:
        batch, side = self._options.batch_per_worker, self._options.resolution
        return [
            (torch.randn(batch, 3, side, side), torch.randint(0, MEMORY_CLASSES, (batch,)))
            for _ in range(POOL)
        ]

    def _read(self, options: argparse.Namespace, rank: int, size: int) -> DataLoader:
        steps = transforms.Compose(
            [
                transforms.RandomResizedCrop(options.resolution),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )
        images = ImageFolder(str(options.data / "train"), steps)
        self.classes = len(images.classes)
        # Over and over within one epoch: pauses between epochs are not what is measured.
        needed = self._last * options.batch_per_worker * size
        often = ConcatDataset([images] * math.ceil(needed / len(images)))
        sampler = DistributedSampler(often, num_replicas=size, rank=rank)
        sampler.set_epoch(0)
        processes = options.loader_workers
        return DataLoader(
            often,
            batch_size=options.batch_per_worker,
            sampler=sampler,
            num_workers=processes,
            # Forking a process of MPI is not safe; Horovod's example does the same.
            multiprocessing_context=multiprocessing.get_context("forkserver")
            if processes
            else None,
        )


def hits(logits: torch.Tensor, labels: torch.Tensor, ks: tuple[int, ...]) -> list[torch.Tensor]:
    """Return for each k the percentage of images whose label is among the k most likely."""
    ks = tuple(min(k, logits.shape[1]) for k in ks)
    best = logits.topk(max(ks), dim=1).indices
    found = best == labels[:, None]
    return [100 * found[:, :k].any(dim=1).float().mean() for k in ks]


class Mean:
    """A running mean of numbers, as their progress lines show."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, value: float, images: int = 1) -> None:
        """Count ``value`` for so many images."""
        self._sum += value * images
        self._count += images

    @property
    def value(self) -> float:
        """The mean so far."""
        return self._sum / max(1, self._count)


def numbered(training: Training) -> Iterator[tuple[int, Batch]]:
    """Yield the batches with their step, from 1."""
    return zip(count(1), training, strict=False)
