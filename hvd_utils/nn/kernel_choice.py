"""Which kernels compute batch norm in training: ``--batch-norm``."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import launched_rank
from hvd_utils.nn.batch_norm import traceable_batch_norm
from hvd_utils.nn.fused_blocks import use_fused_kernel

CAPABILITY = (8, 0)  # from which on Triton supports a GPU: https://github.com/triton-lang/triton
# Python takes longer to start its six kernels than PyTorch's two: on an H100, eager ResNet-50 waits
# for that even with 256 images. For several workers, PyTorch's take 2.4 times as long.
FEWEST_WORKERS = 2


def choose_batch_norm(
    model: nn.Module,
    choice: str,
    device: torch.device,
    *,
    channels_last: bool,
    gather: Callable[[Any], list[Any]] = lambda value: [value],
) -> None:
    """Have the model's batch norms computed as ``choice`` says, in place; collective.

    ``auto`` takes Triton's kernel for compiled models and passes of several workers, where it
    computes on all ranks what it should, and PyTorch's elsewhere; where a GPU could do better, one
    line warns. ``gather`` returns every rank's value on every rank. Raises BadInput, on all ranks,
    where ``triton`` cannot be had.
    """
    if choice == "torch" or (choice == "auto" and (device.type != "cuda" or not channels_last)):
        return  # the same on all ranks, which have the same settings and kind of device
    reasons = [reason for reason in gather(_why_not(device, channels_last)) if reason]
    if not reasons:
        from hvd_utils.nn.triton_batch_norm import batch_norm

        use_fused_kernel(model, batch_norm, FEWEST_WORKERS if choice == "auto" else 1)
    elif choice == "triton":
        raise BadInput(f"--batch-norm triton: {reasons[0]}, or set --batch-norm torch")
    elif launched_rank() == 0:
        print(
            "warning: batch norm is computed by PyTorch's kernels on all ranks, which is slower in "
            f"compiled models and passes of several workers: {reasons[0]} "
            "(--batch-norm torch leaves this line out)",
            flush=True,
        )


def _why_not(device: torch.device, channels_last: bool) -> str | None:
    """Return why this rank cannot use Triton's kernel; None where it can. Never raises."""
    reason = _lacking(device, channels_last)
    if reason:
        reason = f"Triton's kernel needs {reason}"
    else:
        try:
            from hvd_utils.nn.triton_batch_norm import batch_norm

            try_kernel(batch_norm, device)
        except BadInput as error:
            reason = str(error)
        except Exception as error:  # a broken Triton fails to be imported in many ways
            reason = f"Triton's kernel cannot be imported ({' '.join(str(error).split())[:200]})"
    return f"on {socket.gethostname()} {reason}" if reason else None


def _lacking(device: torch.device, channels_last: bool) -> str | None:
    """Return what Triton's kernel needs and does not have here; None if it has all."""
    if device.type != "cuda":
        return "a GPU: set --device cuda"
    if torch.cuda.get_device_capability(device) < CAPABILITY:
        return f"a GPU of compute capability {CAPABILITY[0]} (Ampere) or newer"
    if not channels_last:
        return "images that are channels-last in memory: set --channels-last"
    if importlib.util.find_spec("triton") is None:
        return "Triton: install triton"
    if not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))):
        return "a C compiler, by which Triton starts its kernels: install gcc"
    return None


def try_kernel(kernel, device: torch.device) -> None:
    """Compute a small batch of two workers by ``kernel`` and spelled out, there and back.

    Raises BadInput where the kernel does not run or the results are not the same.
    """
    try:
        apart = _difference(kernel, device)
    except Exception as error:  # the compiler and the driver raise many kinds
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"batch norm by Triton does not run here ({reason})") from error
    if not apart < 1e-3:
        raise BadInput(f"batch norm by Triton computes wrongly here (by {apart:.1g})")


def _difference(kernel, device: torch.device) -> float:
    """Return the largest difference of results and gradients, which are of the size of 1."""
    generator = torch.Generator().manual_seed(0)
    shapes = (6, 5, 4, 3), (5,), (5,), (6, 5, 4, 3)
    drawn = [torch.randn(shape, generator=generator).to(device) for shape in shapes]
    found = []
    for way in (kernel, _spelled_out):
        images, weight, bias, shortcut = (one.clone().requires_grad_() for one in drawn)
        output, mean, var = way(images, 2, weight, bias, 1e-5, shortcut, True)
        given = (images, weight, bias, shortcut)
        found.append([output, mean, var, *torch.autograd.grad(output.sum(), given)])
    apart = [(a - b).abs().max() for a, b in zip(*found, strict=True)]
    return torch.stack(apart).max().item()  # Python's max would pass over what is not a number


def _spelled_out(images, workers, weight, bias, eps, shortcut, relu):
    normalised, mean, var = traceable_batch_norm(images, workers, weight, bias, eps)
    return functional.relu(normalised + shortcut), mean, var
