"""Gradient compression: 16 bits during the allreduce, which rounds them."""

from __future__ import annotations

from typing import Any, Literal

import horovod.torch as hvd
import torch
from horovod.torch import mpi_ops

from hvd_utils.cli.errors import BadInput
from hvd_utils.nn.memory_format import contiguous_view

# A rank's part of a gradient is divided by the whole minibatch kn, so the more ranks, the smaller
# it is, while the sum stays what it is. Half precision reaches from 6e-8 to 65,504; times 1,024, a
# power of two and so exact, it holds parts down to 6e-11 (all digits from 6e-8) and sums up to 63.
# A larger sum becomes infinite, and the run ends with its step (run/nonfinite_trace.py). Each
# addition rounds to 11 bits: over P ranks in a ring P − 1 of them, one after the other.
SCALE = 1024.0


class ScaledHalf:
    """What ``hvd.DistributedOptimizer`` takes as a compression: half precision, scaled."""

    @staticmethod
    def compress(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.dtype]:
        """Return ``tensor`` as it is sent, and what it was."""
        half = torch.empty_like(tensor, dtype=torch.float16)
        return torch.mul(tensor, SCALE, out=half), tensor.dtype

    @staticmethod
    def decompress(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return a sum that was sent, in the gradients' own precision."""
        return tensor.to(dtype).mul_(1 / SCALE)


class BrainFloat:
    """bfloat16, which reaches as far as float32 and needs no scale, with 8 bits for 24.

    Horovod 0.28.1 cannot sum it; our build can (patches/horovod-0.28.1).
    """

    @staticmethod
    def compress(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.dtype]:
        """Return ``tensor`` as it is sent, and what it was."""
        return tensor.bfloat16(), tensor.dtype

    @staticmethod
    def decompress(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return a sum that was sent, in the gradients' own precision."""
        return tensor.to(dtype)


def make_compression(name: Literal["none", "fp16", "bf16"], *, scaled: bool) -> type:
    """Return the compression of that name; ``scaled`` where the loss, and so gradients, are.

    Raises BadInput where this build of Horovod cannot sum it.
    """
    if name == "none":
        return hvd.Compression.none
    if name == "bf16":
        if not hasattr(mpi_ops.mpi_lib, "horovod_torch_allreduce_async_torch_BFloat16Tensor"):
            raise BadInput(
                "--compression bf16: this Horovod cannot sum bfloat16: build it by "
                "tools/install_horovod.py, or set fp16"
            )
        return BrainFloat
    return hvd.Compression.fp16 if scaled else ScaledHalf


class ContiguousViews:
    """What Horovod calls a compressor: passes contiguous views of gradients on to another one.

    Horovod takes contiguous tensors only. By a view, a sum in place sums a channels-last gradient
    itself, not a copy of it.
    """

    def __init__(self, compressor: Any) -> None:
        self._inner = compressor

    def compress(self, gradient: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Return what is to be summed, and what ``decompress`` needs to know."""
        compressed, context = self._inner.compress(contiguous_view(gradient))
        return compressed, (context, not gradient.is_contiguous())

    def decompress(self, summed: torch.Tensor, context: Any) -> torch.Tensor:
        """Return the summed gradient in the layout that it had."""
        inner, permuted = context
        gradient = self._inner.decompress(summed, inner)
        return gradient.permute(0, 3, 1, 2) if permuted else gradient
