"""Memory format: channels-last, which tensor cores and oneDNN prefer for convolutions.

The numbers are the same; only their places differ.
"""

from __future__ import annotations

import torch
from torch import nn


def set_memory_format(model: nn.Module, *, channels_last: bool) -> None:
    """Convert the model's weights in place, and its images before each forward pass."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.to(memory_format=layout)
    model.register_forward_pre_hook(
        lambda _, inputs: tuple(images.contiguous(memory_format=layout) for images in inputs)
    )


def default_channels_last(precision: str, device: torch.device) -> bool:
    """Return whether channels-last is quicker: on tensor cores, and on a CPU."""
    return device.type == "cpu" or precision in ("tf32", "bf16", "fp16")


def contiguous_view(tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous view of a contiguous or channels-last tensor, for Horovod."""
    return tensor if tensor.is_contiguous() else tensor.permute(0, 2, 3, 1)
