"""Gradient buckets: which gradients Horovod sums in one message, and their memory.

Left to itself, Horovod sums the gradients that are ready together. These differ from launch to
launch, and so does the rounding of a sum over three or more processes. In buckets the same
gradients always travel together, and a run repeats to the bit.

The gradients of a bucket lie side by side in one block of memory, at the same place in every step.
On a CPU, Horovod sums them there; otherwise it copies them to its own buffer and back. CUDA graphs
need the fixed place: their backward pass writes gradients to memory that the next pass overwrites.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import nn

from hvd_utils.config.settings import CommunicationSettings
from hvd_utils.nn.cpu import huge_zeros

MB = 2**20  # as Horovod counts


# For ResNet-50's 102 MB on 2 ranks of one CPU, and over 1 Gbit/s, buckets of 4 to 25 MB take the
# same time (python -m benchmarks.allreduce); 2 ranks on one node sum pieces of 4 MB in any case.
CPU_BUCKET_MB = 8.0
LAST_BUCKET_MB = 1.0  # of the first layers: while it travels nothing is left to compute


GPU_BUCKET_MB = 25.0  # not measured here: the default of PyTorch's DistributedDataParallel

Parameter = TypeVar("Parameter")


def bucket_mb(settings: CommunicationSettings, *, cuda: bool) -> float:
    """Return the size of a bucket in MB; 0: Horovod fuses what is ready."""
    if settings.bucket_mb is not None:
        return settings.bucket_mb
    if settings.autotune is not None:  # what is tuned is fusion
        return 0
    return GPU_BUCKET_MB if cuda else CPU_BUCKET_MB


def buckets(sizes: Sequence[tuple[Parameter, int]], limit_mb: float) -> list[list[Parameter]]:
    """Return parameters, given with their bytes, in buckets of at most ``limit_mb``.

    From the last to the first, as backprop makes their gradients. A larger one is a bucket by
    itself. The first layers' are a bucket of at most ``LAST_BUCKET_MB``: behind its sum there is
    nothing left to compute.
    """
    last = 0
    room = min(limit_mb, LAST_BUCKET_MB) * MB
    while last < len(sizes) and sizes[last][1] <= room:
        room -= sizes[last][1]
        last += 1
    groups: list[list[Parameter]] = []
    room = 0.0
    for parameter, size in reversed(sizes[last:]):
        if not groups or size > room:
            groups.append([])
            room = limit_mb * MB
        groups[-1].append(parameter)
        room -= size
    if last:
        groups.append([parameter for parameter, _ in reversed(sizes[:last])])
    return groups


def place_contiguously(buckets: Sequence[Sequence[nn.Parameter]]) -> None:
    """Have each gradient kept at its place in one block of memory a bucket.

    Backprop's own tensor is copied there, on a CPU while it is still in cache, and dropped; later
    passes of the step add to it in place.
    """
    for bucket in buckets:
        sizes = [parameter.numel() for parameter in bucket]
        block = _zeros(sum(sizes), bucket[0])
        for parameter, part in zip(bucket, block.split(sizes), strict=True):
            place = part.as_strided(parameter.shape, parameter.stride())
            parameter.register_post_accumulate_grad_hook(partial(_keep_at, place))


def _zeros(elements: int, like: torch.Tensor) -> torch.Tensor:
    if like.device.type == "cpu":
        return huge_zeros(elements, like.dtype)
    return like.new_zeros(elements)


def _keep_at(place: torch.Tensor, parameter: torch.Tensor) -> None:
    if parameter.grad is not place:
        place.copy_(parameter.grad)
        parameter.grad = place
