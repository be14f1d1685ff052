"""The gradients of a bucket lie side by side in memory: Horovod sums them where they are.

Elsewhere it copies them to a buffer of its own and back, which on a CPU takes from backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from hvd_utils.allocator import huge_zeros


def lay_side_by_side(buckets: Sequence[Sequence[nn.Parameter]]) -> None:
    """Have each gradient on the CPU kept at its place in one block of memory a bucket.

    Backprop's own tensor is copied there while it is still in cache, and dropped; later passes of
    the step add to it in place.
    """
    for bucket in buckets:
        sizes = [parameter.numel() for parameter in bucket]
        block = huge_zeros(sum(sizes), bucket[0].dtype)
        for parameter, part in zip(bucket, block.split(sizes), strict=True):
            place = part.as_strided(parameter.shape, parameter.stride())
            parameter.register_post_accumulate_grad_hook(partial(_keep_at, place))


def _keep_at(place: torch.Tensor, parameter: torch.Tensor) -> None:
    if parameter.grad is not place:
        place.copy_(parameter.grad)
        parameter.grad = place
