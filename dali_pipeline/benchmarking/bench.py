"""A benchmark: an endless stream of batches, and its images per second."""

from __future__ import annotations

import importlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from dali_pipeline.sampling.plan import Plan

Item = TypeVar("Item")
Result = TypeVar("Result")


class Missing(Exception):
    """What a candidate needs is not here; the text names it and how to get it."""


@dataclass(frozen=True)
class Bench:
    """What all candidates have in common: the plan of one logical worker, and the machine.

    ``threads`` are decoding threads or processes; ``scratch`` is a folder for copies of the images
    in other formats. ``failed`` are the ways to decode on a GPU that failed their probe, and why.
    """

    plan: Plan
    device: torch.device
    threads: int
    scratch: Path
    failed: Mapping[str, str] = field(default_factory=dict)

    def places(self) -> Iterator[tuple[int, range]]:
        """Yield the plan's (step, workers) without end."""
        return ((step, fused) for step in count() for fused in self.plan.passes)

    def ids(self) -> Iterator[np.ndarray]:
        """Yield the image ids of the plan's batches, int32 (batch,), without end."""
        return (self.plan.training_ids(*place)[1] for place in self.places())


class Stream(NamedTuple):
    """One candidate under way: what it does, in words, and its batches."""

    what: str
    batches: Iterator[Any]


def images_per_second(stream: Stream, bench: Bench, seconds: float) -> float:
    """Return the rate of ``stream`` in its steady state, over ``seconds`` or a little more.

    Batches that were ready before the clock starts are not counted.
    """
    ready = 2 * bench.threads + 4  # more than any candidate prefetches
    for _ in range(ready):
        next(stream.batches)
    _wait(bench.device)
    began, batches = time.perf_counter(), 0
    while not batches or time.perf_counter() - began < seconds:
        next(stream.batches)
        batches += 1
    _wait(bench.device)
    return batches * bench.plan.training_size / (time.perf_counter() - began)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_threads(
    function: Callable[[Item], Result], batches: Iterable[Iterable[Item]], threads: int
) -> Iterator[list[Result]]:
    """Yield ``function`` of every item of each batch, computed by threads two batches ahead."""
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[list] = deque()
        for batch in batches:
            pending.append([pool.submit(function, item) for item in batch])
            if len(pending) > 2:
                yield [item.result() for item in pending.popleft()]


def needed(module: str, remedy: str) -> ModuleType:
    """Import a library that only a peer needs; raise Missing where that fails."""
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library that it loads is absent
        raise Missing(f"{module} cannot be imported ({error}): {remedy}") from error
