"""Memory format: channels-last, which tensor cores and oneDNN prefer for convolutions.

The numbers are the same; only their places differ.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


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


class PaddedConv2d(nn.Conv2d):
    """A convolution computed with one more channel, of zeros, in images and weight alike.

    The result is the same, and so are the parameters. Tensor cores take 4 channels, not 3.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return what ``nn.Conv2d`` would."""
        one_more = (0, 0, 0, 0, 0, 1)
        images, weight = (functional.pad(one, one_more) for one in (images, self.weight))
        return functional.conv2d(
            images, weight, self.bias, self.stride, self.padding, self.dilation
        )


def pad_stem(model: nn.Module) -> None:
    """Have the model's convolutions of 3 channels computed with 4, in place."""
    for module in model.modules():
        if type(module) is nn.Conv2d and (
            module.in_channels,
            module.groups,
            module.padding_mode,
        ) == (3, 1, "zeros"):
            module.__class__ = PaddedConv2d


def contiguous_view(tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous view of a contiguous or channels-last tensor, for Horovod."""
    return tensor if tensor.is_contiguous() else tensor.permute(0, 2, 3, 1)
