"""The paper's form (10) of momentum, with and without its correction: a control of Remark 2.

    v ← m · v + η · g,    w ← w − v

The rate η is part of v, so when it changes, what v holds of earlier steps is of another rate. With
the correction v ← m · (η_new / η_old) · v + η_new · g this is form (9) again, which PyTorch has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# In a parameter group, and so in a checkpoint. Horovod's optimizer keeps nothing else of this one.
CORRECTED = "rate_corrected"  # whether v is corrected when the rate changes
BEFORE = "rate_before"  # the rate of the last update


class RateInMomentumSGD(torch.optim.SGD):
    """SGD by form (10)."""

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:
        """Make an update of all parameters that have a gradient."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            before = group.get(BEFORE) or rate
            correction = rate / before if group[CORRECTED] else 1.0
            group[BEFORE] = rate
            for weight in group["params"]:
                if weight.grad is not None:
                    gradient = weight.grad.add(weight, alpha=group["weight_decay"])
                    v = self.state[weight]["momentum_buffer"]
                    v.mul_(momentum * correction).add_(gradient, alpha=rate)
                    if group["nesterov"]:  # g + m·u of form (9), times η
                        weight.sub_(rate * gradient + momentum * v)
                    else:
                        weight.sub_(v)


def rate_in_momentum(
    groups: list[dict[str, Any]], corrected: bool, **options: Any
) -> torch.optim.Optimizer:
    """Return the optimizer for these parameter groups; ``options`` are those of SGD."""
    return RateInMomentumSGD([{**group, CORRECTED: corrected} for group in groups], **options)
