"""The gradients of a bucket lie side by side in memory, at the same place in every step.

On a CPU Horovod then sums them where they are; elsewhere it copies them to a buffer of its own and
back, which takes from backprop. CUDA graphs need the place: their backward pass leaves gradients in
memory that the next pass overwrites, so without it accumulated gradients are lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from hvd_utils.allocator import huge_zeros


def lay_side_by_side(buckets: Sequence[Sequence[nn.Parameter]]) -> None:
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
