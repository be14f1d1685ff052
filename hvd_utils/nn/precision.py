"""The precision of forward and backward passes; weights and updates stay in float32.

``fp32`` is the paper's. ``tf32`` rounds the factors of products to 10 bits of mantissa on NVIDIA's
tensor cores; ``bf16`` and ``fp16`` are mixed precision (Micikevicius et al. 2018), in which
PyTorch's autocast chooses what is computed in 16 bits; ``fp64`` is double precision throughout,
which shows that runs agree but for rounding.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from hvd_utils.cli.errors import BadInput

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def parameter_dtype(precision: str) -> torch.dtype:
    """Return the type of parameters, gradients and momentum."""
    return torch.float64 if precision == "fp64" else torch.float32


def as_input(images: torch.Tensor, dtype: torch.dtype, precision: str) -> torch.Tensor:
    """Return images as a model with parameters of ``dtype`` takes them.

    Those that come in the 16 bits that autocast would round them to stay so.
    """
    return images if images.dtype == AUTOCAST.get(precision) else images.to(dtype)


def computing(precision: str, device: torch.device) -> AbstractContextManager:
    """Return the context in which a forward pass computes its loss."""
    if precision in AUTOCAST:
        return torch.autocast(device.type, AUTOCAST[precision])
    return nullcontext()


def set_matmul_precision(precision: str, device: torch.device) -> None:
    """Round products of float32 numbers by ``precision``: to 10 bits in tf32 alone.

    By default PyTorch computes convolutions in TF32. Raises BadInput where the device has no such
    arithmetic.
    """
    on_gpu = device.type == "cuda"
    if precision == "tf32" and not on_gpu:
        raise BadInput("--precision tf32 is arithmetic of NVIDIA's GPUs: set fp32 on a CPU")
    if precision in ("tf32", "bf16") and on_gpu and torch.cuda.get_device_capability(device) < (8,):
        raise BadInput(
            f"{torch.cuda.get_device_name(device)} has no {precision}, which came with Ampere: "
            "set --precision fp16 or fp32"
        )
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
