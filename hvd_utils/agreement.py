"""Flags that any rank may raise, and that all ranks see after the same step.

A signal may reach one rank only, and at another instant than the others. All must stop after the
same step, so every step carries a sum of the flags over all ranks: a message of a few bytes that
starts before the step and is over long before its gradients are.
"""

from __future__ import annotations

from collections.abc import Callable

import horovod.torch as hvd
import torch


class Agreement:
    """Flags of all ranks, by name: ``agreement.ask()`` begins, ``agreement.settle()`` ends a round.

    ``own`` tells this rank's flags. Every rank must make the same rounds.
    """

    def __init__(self, size: int, **own: Callable[[], bool]) -> None:
        self._size = size
        self._own = own
        self._agreed = dict.fromkeys(own, False)

    def ask(self) -> None:
        """Tell the others this rank's flags, without waiting."""
        flags = [int(flag()) for flag in self._own.values()]
        # Integers: Horovod fuses what is of one type, and would then add up other sums otherwise.
        self._sums = torch.tensor(flags, dtype=torch.int32)
        if self._size > 1 and flags:
            self._handle = hvd.allreduce_async_(self._sums, op=hvd.Sum, name="agreement")

    def settle(self) -> None:
        """Wait for the others' flags: each is set from now on that any rank had set."""
        if self._size > 1 and self._own:
            hvd.synchronize(self._handle)
        self._agreed = {
            name: bool(total) for name, total in zip(self._own, self._sums.tolist(), strict=True)
        }

    def __getitem__(self, name: str) -> bool:
        """Return whether any rank had this flag set at the last round."""
        return self._agreed[name]

    def __bool__(self) -> bool:
        """Return whether any flag was set."""
        return any(self._agreed.values())
