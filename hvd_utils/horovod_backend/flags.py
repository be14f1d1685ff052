"""Shared flags: any rank raises one, and all ranks see it after the same step.

A signal may reach one rank only, or each rank at another instant. All ranks must stop after the
same step. So every step carries a sum of the flags over all ranks: a message of a few bytes, which
starts before the step and has arrived long before the gradients.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from hvd_utils.horovod_backend.async_ops import AsyncSum


class SharedFlags:
    """Flags of all ranks, by name; ``send`` and then ``receive`` make one round.

    Each argument after ``size`` is a flag: whether this rank raises it. Every rank must
    make the same rounds.
    """

    def __init__(self, size: int, **own: Callable[[], bool]) -> None:
        self._own = own
        self._raised = dict.fromkeys(own, False)
        self._sum = AsyncSum(size if own else 1, "shared_flags")

    def send(self) -> None:
        """Send this rank's flags to the others; does not wait."""
        flags = [int(flag()) for flag in self._own.values()]
        # Integers: Horovod fuses tensors of one type, and gradients must be fused the same way
        # in every step.
        self._sum.begin(torch.tensor(flags, dtype=torch.int32))

    def receive(self) -> None:
        """Wait for the other ranks' flags: from now on a flag is set if any rank had raised it."""
        totals = self._sum.end().tolist()
        self._raised = {name: bool(total) for name, total in zip(self._own, totals, strict=True)}

    def __getitem__(self, name: str) -> bool:
        """Return whether any rank had raised this flag in the last round."""
        return self._raised[name]

    def __bool__(self) -> bool:
        """Return whether any flag was raised."""
        return any(self._raised.values())
