"""The same mathematics, closer to the hardware: how tensors lie in memory, and compilation."""

from __future__ import annotations

import torch
from torch import nn

from hvd_utils.compiling import compile_stages
from hvd_utils.layout import lay_out
from hvd_utils.settings import SpeedSettings


def quicken(model: nn.Module, settings: SpeedSettings, device: torch.device) -> None:
    """Lay the model out in memory, choose kernels, and compile it, in place, as settings say."""
    channels_last = settings.channels_last
    if channels_last is None:
        channels_last = default_channels_last(settings.precision, device)
    lay_out(model, channels_last=channels_last)
    torch.backends.cudnn.benchmark = settings.cudnn_benchmark
    torch.backends.cudnn.deterministic = not settings.cudnn_benchmark
    if settings.compile != "none":
        compile_stages(model, settings.compile)


def default_channels_last(precision: str, device: torch.device) -> bool:
    """Return whether channels-last is quicker: on tensor cores, and on a CPU."""
    return device.type == "cpu" or precision in ("tf32", "bf16", "fp16")
