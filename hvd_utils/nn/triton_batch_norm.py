"""Batch norm by worker on a GPU, with the shortcut's sum and ReLU in the same kernels.

The kernels of ``triton_kernels`` as operators of PyTorch that autograd, torch.compile and CUDA
graphs take (https://docs.pytorch.org/docs/stable/library.html). Nothing is added in an order that
chance decides: what is computed twice is the same to the bit.

Triton's interpreter runs them on a CPU: ``TRITON_INTERPRET=1``, set before Triton is imported.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from triton import cdiv, next_power_of_2

from hvd_utils.nn import triton_kernels

BLOCK = 4096  # numbers that a program holds at once: 16 in each thread of 8 warps
COLUMNS = 64  # most channels of a program: 128 bytes in 16 bits, a line of the cache
PARTS_COLUMNS = 16  # likewise where parts are added, of which there are many
PROGRAMS = 1024  # for one worker, at most: they fill any GPU
OPTIONS = {"num_warps": 8, "enable_fp_fusion": True}  # x · y + z is rounded once


class _Grid(NamedTuple):
    """How one worker's pixels and channels are shared out to programs.

    It does not depend on the number of workers, nor therefore do the bits of a worker's sums.
    """

    rows: int
    columns: int
    parts: int
    blocks: int  # of channels
    part_size: int  # pixels, a multiple of rows

    @classmethod
    def of(cls, count: int, channels: int) -> _Grid:
        columns = min(COLUMNS, next_power_of_2(channels))
        rows, blocks = BLOCK // columns, cdiv(channels, columns)
        steps = cdiv(count, rows)
        part_size = rows * cdiv(steps, min(steps, max(1, PROGRAMS // blocks)))
        return cls(rows, columns, cdiv(count, part_size), blocks, part_size)


def batch_norm(
    images: torch.Tensor,
    workers: int,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
    shortcut: torch.Tensor | None = None,
    relu: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return normalised images, and each worker's mean and unbiased variance (workers, channels).

    ``shortcut``, of the images' shape, is added to them, then comes ReLU if ``relu``. The result is
    channels-last in memory. Sums are in float32, of float64 images in float64. Raises ValueError
    for a worker of a single pixel.
    """
    if images.numel() == workers * images.shape[1]:
        raise ValueError(f"no variance of one pixel a worker: {tuple(images.shape)}")
    if shortcut is not None:
        shortcut = shortcut.to(images.dtype)
    output, statistics = forward(images, shortcut, weight, bias, workers, eps, relu)
    return output, statistics[0], statistics[1]


def _channels_last(images: torch.Tensor) -> torch.Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _empty(images: torch.Tensor, *shape: int) -> torch.Tensor:
    """Return a place for sums: float32, or float64 for such images."""
    double = images.dtype == torch.float64
    return images.new_empty(shape, dtype=torch.float64 if double else torch.float32)


@torch.library.custom_op(
    "imagenet::batch_norm",
    mutates_args=(),
    schema="(Tensor images, Tensor? shortcut, Tensor weight, Tensor bias, int workers, float eps, "
    "bool relu) -> (Tensor, Tensor)",
)
def forward(images, shortcut, weight, bias, workers, eps, relu):
    """Return the output, and mean, unbiased variance and 1/σ of each worker (3, workers, C)."""
    images = _channels_last(images)
    if shortcut is not None:
        shortcut = _channels_last(shortcut)
    channels, pixels = images.shape[1], images.shape[2] * images.shape[3]
    count = len(images) // workers * pixels
    grid = _Grid.of(count, channels)
    partial = _empty(images, 2, workers, grid.parts, channels)
    statistics = _empty(images, 3, workers, channels)
    output = torch.empty_like(images, memory_format=torch.channels_last)
    programs, block = (grid.parts, grid.blocks, workers), (grid.rows, grid.columns)
    sizes = (count, pixels, channels, grid.part_size)
    with torch.cuda.device_of(images):
        triton_kernels.moments[programs](images, partial, *sizes, *block, **OPTIONS)
        triton_kernels.statistics_of_parts[cdiv(channels, PARTS_COLUMNS), workers](
            *(partial, statistics, count, channels, grid.parts, grid.part_size, eps),
            *_block_of_parts(),
            **OPTIONS,
        )
        triton_kernels.normalise[programs](
            *(images, shortcut, output, weight, bias, statistics, *sizes),
            *(shortcut is not None, relu, *block),
            **OPTIONS,
        )
    return output, statistics


@torch.library.custom_op(
    "imagenet::batch_norm_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor images, Tensor? output, Tensor weight, Tensor bias, Tensor "
    "statistics, bool relu) -> (Tensor, Tensor, Tensor)",
)
def backward(gradient, images, output, weight, bias, statistics, relu):
    """Return the gradients of images, of the shortcut, and of β and γ (2, C).

    ``output`` is given where there was a shortcut. Without one, its gradient has no elements.
    """
    gradient, images = _channels_last(gradient), _channels_last(images)
    channels, pixels = images.shape[1], images.shape[2] * images.shape[3]
    workers, summed = statistics.shape[1], output is not None
    count = len(images) // workers * pixels
    grid = _Grid.of(count, channels)
    partial = _empty(images, 2, workers, grid.parts, channels)
    sums = _empty(images, 2, workers, channels)
    result = torch.empty_like(images, memory_format=torch.channels_last)
    through = torch.empty_like(result) if summed else images.new_empty(0)
    programs, block = (grid.parts, grid.blocks, workers), (grid.rows, grid.columns)
    sizes = (count, pixels, channels, grid.part_size)
    with torch.cuda.device_of(images):
        triton_kernels.gradient_sums[programs](
            *(gradient, images, output, through, partial, weight, bias, statistics, *sizes),
            *(summed, relu, *block),
            **OPTIONS,
        )
        triton_kernels.sums_of_parts[cdiv(channels, PARTS_COLUMNS), 2 * workers](
            partial, sums, channels, grid.parts, *_block_of_parts(), **OPTIONS
        )
        triton_kernels.images_gradient[programs](
            *(through if summed else gradient, images, result, weight, bias, statistics, sums),
            *(*sizes, relu and not summed, *block),
            **OPTIONS,
        )
    return result, through, sums.sum(dim=1)


def _block_of_parts() -> tuple[int, int]:
    return BLOCK // PARTS_COLUMNS, PARTS_COLUMNS


@forward.register_fake
def _(images, shortcut, weight, bias, workers, eps, relu):
    output = torch.empty_like(images, memory_format=torch.channels_last)
    return output, _empty(images, 3, workers, images.shape[1])


@backward.register_fake
def _(gradient, images, output, weight, bias, statistics, relu):
    result = torch.empty_like(images, memory_format=torch.channels_last)
    through = torch.empty_like(result) if output is not None else images.new_empty(0)
    return result, through, _empty(images, 2, images.shape[1])


def _setup_context(ctx, inputs, output) -> None:
    images, shortcut, weight, bias, _, _, relu = inputs
    normalised, statistics = output
    ctx.relu, ctx.summed = relu, shortcut is not None
    saved = normalised if ctx.summed else None
    ctx.save_for_backward(images, saved, weight, bias, statistics)


def _backward(ctx, gradient, _):
    images, output, weight, bias, statistics = ctx.saved_tensors
    result, through, affine = backward(gradient, images, output, weight, bias, statistics, ctx.relu)
    beta, gamma = affine.to(weight.dtype)
    return result, through if ctx.summed else None, gamma, beta, None, None, None


forward.register_autograd(_backward, setup_context=_setup_context)
