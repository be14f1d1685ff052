"""Seeds of random layers such as dropout: a function of worker and step.

Nothing in the paper's networks draws any; a user's may. Each logical worker's pass begins with a
seed of its own, so what it draws depends neither on the process that carries it nor on what was
drawn before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hvd_utils.cli.errors import BadInput
from hvd_utils.paper.logical_workers import random_seed


def seed_random_modules(seed: int, step: int, worker: int) -> None:
    """Seed PyTorch on this process's devices for the pass of one logical worker in one step."""
    drawn = random_seed(seed, step, worker)
    torch.default_generator.manual_seed(drawn)  # torch.manual_seed takes 0.3 ms, a step's 3 %
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(drawn)


@contextmanager
def refuse_random_numbers(workers: int, device: torch.device) -> Iterator[None]:
    """Raise BadInput if the body draws random numbers in a fused pass of several ``workers``.

    One stream of numbers cannot be several workers' own.
    """
    if workers == 1:
        yield
        return
    before = _state(device)
    yield
    if not torch.equal(before, _state(device)):
        raise BadInput(
            f"the model draws random numbers (dropout?), which {workers} workers fused in one pass "
            "would share: set --fuse-workers 1"
        )


def _state(device: torch.device) -> torch.Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
