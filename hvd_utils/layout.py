"""Channels-last in memory: pixel by pixel, as tensor cores and oneDNN take convolutions.

The numbers are the same, only their places differ. Horovod takes contiguous tensors alone, so it is
given channels-last ones with their dimensions in the order of memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def lay_out(model: nn.Module, *, channels_last: bool) -> None:
    """Lay out the model's weights in place, and its images before each forward pass."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.to(memory_format=layout)
    model.register_forward_pre_hook(
        lambda _, inputs: tuple(images.contiguous(memory_format=layout) for images in inputs)
    )


def in_memory_order(tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous view of a tensor that is contiguous or channels-last."""
    return tensor if tensor.is_contiguous() else tensor.permute(0, 2, 3, 1)


class InMemoryOrder:
    """What Horovod calls a compressor: hands gradients over as contiguous views, then to another.

    A sum in place is then a sum of the gradient itself, not of a copy.
    """

    def __init__(self, compressor: Any) -> None:
        self._inner = compressor

    def compress(self, gradient: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Return what is to be summed, and what ``decompress`` needs to know."""
        compressed, context = self._inner.compress(in_memory_order(gradient))
        return compressed, (context, not gradient.is_contiguous())

    def decompress(self, summed: torch.Tensor, context: Any) -> torch.Tensor:
        """Return the summed gradient in the layout that it had."""
        inner, permuted = context
        gradient = self._inner.decompress(summed, inner)
        return gradient.permute(0, 3, 1, 2) if permuted else gradient
