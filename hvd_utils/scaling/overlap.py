"""Simulate the overlap of backprop and allreduce, bucket by bucket, as Horovod does it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from hvd_utils.scaling.gradients import Gradient


@dataclass(frozen=True)
class Horovod:
    """Horovod's settings, with the defaults of version 0.28."""

    fusion_bytes: float = 128 * 2**20  # HOROVOD_FUSION_THRESHOLD
    cycle_seconds: float = 1e-3  # HOROVOD_CYCLE_TIME
    overlap: bool = True  # not: all gradients are summed after backprop


@dataclass(frozen=True)
class Overlap:
    """What became of a step's communication, in seconds after or during backprop."""

    exposed: float  # that the step lasts longer
    hidden: float  # of allreduces, behind backprop
    allreduces: int


def simulate(
    gradients: Sequence[Gradient],
    element_bytes: int,
    backward: float,
    allreduce: Callable[[float], float],
    negotiation: float,
    horovod: Horovod,
) -> Overlap:
    """Return how much of a step's communication its backprop of ``backward`` seconds hides.

    A cycle of Horovod takes the gradients that are ready, agrees on them with all ranks, which
    takes ``negotiation`` seconds, fuses them up to the threshold and sums one buffer after another,
    each in ``allreduce(bytes)`` seconds. The next begins a cycle time after the last, or when that
    is done; without anything ready it looks again a cycle time later.

    As buffers fall differently, a faster network can come out slower, as it can in Horovod, by less
    than a cycle and the latency of an allreduce.
    """
    ready = [backward * (gradient.ready if horovod.overlap else 1.0) for gradient in gradients]
    sizes = [gradient.elements * element_bytes for gradient in gradients]
    now, taken, hidden, allreduces = 0.0, 0, 0.0, 0
    while taken < len(gradients):
        if ready[taken] > now:
            now = _next_cycle(now, ready[taken], horovod.cycle_seconds)
        began, first = now, taken
        while taken < len(gradients) and ready[taken] <= now:
            taken += 1
        now += negotiation
        for size in fuse(sizes[first:taken], horovod.fusion_bytes):
            ends = now + allreduce(size)
            hidden += max(0.0, min(ends, backward) - now)
            now, allreduces = ends, allreduces + 1
        if taken < len(gradients):
            now = max(now, began + horovod.cycle_seconds)
    return Overlap(max(0.0, now - backward), hidden, allreduces)


def _next_cycle(now: float, ready: float, cycle: float) -> float:
    """Return when the first cycle begins at which something is ready."""
    return max(ready, now + math.ceil((ready - now) / cycle) * cycle) if cycle else ready


def fuse(sizes: Iterable[float], most: float) -> Iterator[float]:
    """Yield the sizes of the buffers that hold these tensors, in order, ``most`` bytes in each.

    A tensor larger than that goes alone.
    """
    filled = 0.0
    for size in sizes:
        if filled and filled + size > most:
            yield filled
            filled = 0.0
        filled += size
    if filled:
        yield filled
