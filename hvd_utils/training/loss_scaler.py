"""Loss scaling for fp16 (Micikevicius et al. 2018), over all workers of a step.

Gradients of activations are small, and the smaller the more images kn the loss is divided by; below
6e-8 fp16 rounds them to zero. So the loss is multiplied by a scale before backprop, and the summed
gradients are divided by it in the update. A scale under which they overflow is halved and that
update left out; after ``PATIENCE`` updates without it is doubled. PyTorch's ``GradScaler`` does the
same for one process; here all ranks see the same sums and so decide alike, and the state stays on
the device, so that the host need not wait for it.
"""

from __future__ import annotations

from typing import Any

import torch

FIRST_SCALE = 2.0**16  # for one worker's mean loss; k workers' losses are each a k-th of that
LARGEST_SCALE = 2.0**40  # far from infinity, from which no halving leads back
PATIENCE = 2000  # updates without an overflow before the scale is doubled


class LossScaler:
    """The scale of the loss, which ``update`` adapts once a step."""

    def __init__(self, workers: int, device: torch.device) -> None:
        self.scale = torch.tensor(FIRST_SCALE * workers, device=device)
        self._since = torch.zeros((), device=device)  # the last overflow, in updates

    def update(self, overflow: torch.Tensor) -> None:
        """Take note of whether the gradients of this step overflowed."""
        self._since = torch.where(overflow, 0.0, self._since + 1)
        doubled = self._since == PATIENCE
        factor = torch.where(overflow, 0.5, torch.where(doubled, 2.0, 1.0))
        self.scale = (self.scale * factor).clamp(max=LARGEST_SCALE)
        self._since = torch.where(doubled, 0.0, self._since)

    def state_dict(self) -> dict[str, float]:
        """Return what a run that goes on needs."""
        return {"scale": self.scale.item(), "since_overflow": self._since.item()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.scale.fill_(state["scale"])
        self._since.fill_(state["since_overflow"])
