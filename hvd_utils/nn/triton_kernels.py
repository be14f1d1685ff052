"""The kernels of batch norm by worker for GPUs, in Triton: images stay channels-last in memory.

An image is then a matrix of pixels by channels, and a batch one of all its pixels. A kernel's
program takes a block of channels of one worker's pixels: its share of them, its "part". Sums of the
parts are added in the order of the parts. How many parts there are depends on the number of a
worker's pixels and channels alone, so a worker is normalised to the bit alike whichever others are
in the pass.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _places(start, end, worker, workers, pixels, columns, channels, ROWS: tl.constexpr):
    """Return where ``ROWS`` pixels of ``worker`` from its ``start``-th on lie, and which are in.

    Image i of worker j is at place i · workers + j of the batch.
    """
    row = start + tl.arange(0, ROWS)
    image = row // pixels
    place = (image * workers + worker) * pixels + row % pixels
    inside = row < end
    offsets = place[:, None].to(tl.int64) * channels + columns[None, :]
    return offsets, inside[:, None] & (columns < channels)[None, :], inside[:, None]


@triton.jit
def _pooled(count, mean, squares):
    """Return mean and sum of squared deviations over all rows (Chan et al. 1983)."""
    total = tl.sum(count, axis=0)
    pooled = tl.sum(count * mean, axis=0) / total
    apart = mean - pooled[None, :]
    return pooled, tl.sum(squares + count * apart * apart, axis=0)


@triton.jit
def _of_worker(statistics, weight, bias, worker, workers, columns, channels):
    """Return a worker's mean and 1/σ, and γ and β, of its block of channels."""
    known = columns < channels
    dtype = statistics.dtype.element_ty
    place = statistics + worker * channels + columns
    mean = tl.load(place, mask=known, other=0)
    inverse = tl.load(place + 2 * workers * channels, mask=known, other=0)
    gamma = tl.load(weight + columns, mask=known, other=0).to(dtype)
    return mean, inverse, gamma, tl.load(bias + columns, mask=known, other=0).to(dtype)


@triton.jit
def _normalised(images, mean, inverse, weight, bias):
    return (images - mean[None, :]) * (inverse * weight)[None, :] + bias[None, :]


@triton.jit
def moments(
    images, partial, count, pixels, channels, part_size, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Write each part's mean and sum of squared deviations: ``partial`` (2, workers, parts, C).

    By Welford's method, each row of a block by itself, so that a large mean cancels nothing.
    """
    part, parts = tl.program_id(0), tl.num_programs(0)
    worker, workers = tl.program_id(2), tl.num_programs(2)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    dtype = partial.dtype.element_ty
    seen = tl.zeros((ROWS, 1), dtype)
    mean = tl.zeros((ROWS, COLUMNS), dtype)
    squares = tl.zeros((ROWS, COLUMNS), dtype)
    end = tl.minimum((part + 1) * part_size, count)
    for start in range(part * part_size, end, ROWS):
        offsets, mask, inside = _places(
            start, end, worker, workers, pixels, columns, channels, ROWS
        )
        x = tl.load(images + offsets, mask=mask, other=0).to(dtype)
        seen += inside.to(dtype)
        apart = tl.where(inside, x - mean, 0)
        mean += apart * (1 / tl.maximum(seen, 1))
        squares += apart * (x - mean)
    mean, squares = _pooled(seen, mean, squares)
    place = partial + (worker * parts + part) * channels + columns
    tl.store(place, mean, mask=columns < channels)
    tl.store(place + workers * parts * channels, squares, mask=columns < channels)


@triton.jit
def statistics_of_parts(
    partial,
    statistics,
    count,
    channels,
    parts,
    part_size,
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write each worker's mean, unbiased variance and 1/σ: ``statistics`` (3, workers, C)."""
    worker, workers = tl.program_id(1), tl.num_programs(1)
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    dtype = partial.dtype.element_ty
    seen = tl.zeros((ROWS, 1), dtype)
    mean = tl.zeros((ROWS, COLUMNS), dtype)
    squares = tl.zeros((ROWS, COLUMNS), dtype)
    for start in range(0, parts, ROWS):
        part = start + tl.arange(0, ROWS)[:, None]
        mask = (part < parts) & (columns < channels)[None, :]
        place = partial + (worker * parts + part) * channels + columns[None, :]
        new = tl.maximum(tl.minimum(count - part * part_size, part_size), 0).to(dtype)
        apart = tl.where(new > 0, tl.load(place, mask=mask, other=0) - mean, 0)
        share = new / tl.maximum(seen + new, 1)
        squares += tl.load(place + workers * parts * channels, mask=mask, other=0)
        squares += apart * apart * (seen * share)
        mean += apart * share
        seen += new
    mean, squares = _pooled(seen, mean, squares)
    place = statistics + worker * channels + columns
    step = workers * channels
    tl.store(place, mean, mask=columns < channels)
    tl.store(place + step, squares / (count - 1), mask=columns < channels)
    inverse = 1 / tl.sqrt(squares / count + EPS)
    tl.store(place + 2 * step, inverse, mask=columns < channels)


@triton.jit
def normalise(
    images,
    shortcut,
    output,
    weight,
    bias,
    statistics,
    count,
    pixels,
    channels,
    part_size,
    SUM: tl.constexpr,
    RELU: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write (x - mean) / σ · γ + β, if asked with the shortcut added, if asked through ReLU."""
    part = tl.program_id(0)
    worker, workers = tl.program_id(2), tl.num_programs(2)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    dtype = statistics.dtype.element_ty
    mean, inverse, gamma, beta = _of_worker(
        statistics, weight, bias, worker, workers, columns, channels
    )
    end = tl.minimum((part + 1) * part_size, count)
    for start in range(part * part_size, end, ROWS):
        offsets, mask, _ = _places(start, end, worker, workers, pixels, columns, channels, ROWS)
        x = tl.load(images + offsets, mask=mask, other=0).to(dtype)
        y = _normalised(x, mean, inverse, gamma, beta)
        if SUM:
            y += tl.load(shortcut + offsets, mask=mask, other=0).to(dtype)
        if RELU:
            y = tl.where(y < 0, 0, y)  # what is not a number stays so
        tl.store(output + offsets, y, mask=mask)


@triton.jit
def gradient_sums(
    gradient,
    images,
    output,
    shortcut_gradient,
    partial,
    weight,
    bias,
    statistics,
    count,
    pixels,
    channels,
    part_size,
    SUM: tl.constexpr,
    RELU: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write each part's sums of g and of g · (x - mean) / σ: ``partial`` (2, workers, parts, C).

    g is the gradient behind ReLU and sum, which the shortcut gets too. Where ReLU let nothing
    through is seen in the output, or without a shortcut computed anew, which is less to read.
    """
    part, parts = tl.program_id(0), tl.num_programs(0)
    worker, workers = tl.program_id(2), tl.num_programs(2)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    dtype = partial.dtype.element_ty
    mean, inverse, gamma, beta = _of_worker(
        statistics, weight, bias, worker, workers, columns, channels
    )
    total = tl.zeros((ROWS, COLUMNS), dtype)
    weighted = tl.zeros((ROWS, COLUMNS), dtype)
    end = tl.minimum((part + 1) * part_size, count)
    for start in range(part * part_size, end, ROWS):
        offsets, mask, _ = _places(start, end, worker, workers, pixels, columns, channels, ROWS)
        g = tl.load(gradient + offsets, mask=mask, other=0).to(dtype)
        x = tl.load(images + offsets, mask=mask, other=0).to(dtype)
        if RELU:
            if SUM:
                y = tl.load(output + offsets, mask=mask, other=0).to(dtype)
            else:
                y = _normalised(x, mean, inverse, gamma, beta)
            g = tl.where(y <= 0, 0, g)
        if SUM:
            tl.store(shortcut_gradient + offsets, g, mask=mask)
        total += g
        weighted += g * ((x - mean[None, :]) * inverse[None, :])
    place = partial + (worker * parts + part) * channels + columns
    tl.store(place, tl.sum(total, axis=0), mask=columns < channels)
    place += workers * parts * channels
    tl.store(place, tl.sum(weighted, axis=0), mask=columns < channels)


@triton.jit
def sums_of_parts(partial, sums, channels, parts, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Write the sum over parts: ``partial`` (rows, parts, C), ``sums`` (rows, C)."""
    row = tl.program_id(1)
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), partial.dtype.element_ty)
    for start in range(0, parts, ROWS):
        part = start + tl.arange(0, ROWS)[:, None]
        mask = (part < parts) & (columns < channels)[None, :]
        place = partial + (row * parts + part) * channels + columns[None, :]
        total += tl.load(place, mask=mask, other=0)
    tl.store(sums + row * channels + columns, tl.sum(total, axis=0), mask=columns < channels)


@triton.jit
def images_gradient(
    gradient,
    images,
    result,
    weight,
    bias,
    statistics,
    sums,
    count,
    pixels,
    channels,
    part_size,
    RELU: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write γ/σ · (g - mean of g - x̂ · mean of g · x̂), x̂ = (x - mean) / σ, as Ioffe and Szegedy.

    Where a shortcut has had g written, ``gradient`` is that, and ``RELU`` is behind it already.
    """
    part = tl.program_id(0)
    worker, workers = tl.program_id(2), tl.num_programs(2)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    dtype = statistics.dtype.element_ty
    mean, inverse, gamma, beta = _of_worker(
        statistics, weight, bias, worker, workers, columns, channels
    )
    known = columns < channels
    place = sums + worker * channels + columns
    mean_g = tl.load(place, mask=known, other=0) / count
    mean_gx = tl.load(place + workers * channels, mask=known, other=0) / count
    end = tl.minimum((part + 1) * part_size, count)
    for start in range(part * part_size, end, ROWS):
        offsets, mask, _ = _places(start, end, worker, workers, pixels, columns, channels, ROWS)
        g = tl.load(gradient + offsets, mask=mask, other=0).to(dtype)
        x = tl.load(images + offsets, mask=mask, other=0).to(dtype)
        if RELU:
            g = tl.where(_normalised(x, mean, inverse, gamma, beta) <= 0, 0, g)
        normalised = (x - mean[None, :]) * inverse[None, :]
        g = g - mean_g[None, :] - normalised * mean_gx[None, :]
        tl.store(result + offsets, g * (gamma * inverse)[None, :], mask=mask)
