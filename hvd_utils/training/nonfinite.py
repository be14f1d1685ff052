"""Skip an update whose loss or gradients are not finite, without making the host wait.

On a GPU the host queues work far ahead of what is computed; to look at a number it would have to
wait. So the device itself leaves an update out, and all later ones too, from the first step on
whose sums are not finite. The host looks when it reads the loss anyway, before it logs or saves.
All ranks hold the same sums, so they decide alike.

Of the optimizers only fused ones, as our SGD, can leave an update out on the device. For others,
as LARS, the host looks once a step, and on a GPU waits for it; then the gradients of fp16 are
divided by their scale here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.nn.utils import get_total_norm

from hvd_utils.training.loss_scaler import LossScaler

NEVER = -1


class NonfiniteError(Exception):
    """The sums of a step over all workers are not finite; its update was not made."""

    def __init__(self, step: int) -> None:
        super().__init__(f"step {step}")
        self.step = step


def all_finite(gradients: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return on the device whether every element of the gradients is a finite number.

    That is, whether their norm is. The 2-norm, in float32 finite up to 1.8e19, takes a tenth of the
    time of the largest element: for that PyTorch has no quick kernel on a CPU.
    """
    return torch.isfinite(get_total_norm(gradients, norm_type=2.0))


class Guard:
    """Stands between the summed gradients and the update.

    ``scaler`` is there in fp16 alone; then gradients that are not finite are an overflow of the
    scaled ones, which leaves one update out and is no failure, while the scale is above 1.
    """

    def __init__(self, precision: str, workers: int, device: torch.device) -> None:
        self._scaler = LossScaler(workers, device) if precision == "fp16" else None
        self._failed = torch.tensor(NEVER, device=device)  # the first such step
        self._left_out = torch.zeros((), dtype=torch.int64, device=device)
        self._overflow = torch.ones((), dtype=torch.bool, device=device)  # of the last step
        self._waits = device.type != "cuda"  # looking costs nothing

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """Return the loss to propagate back."""
        return loss if self._scaler is None else loss * self._scaler.scale

    @torch.no_grad()
    def update(self, optimizer: torch.optim.Optimizer, step: int, loss: torch.Tensor) -> None:
        """Make the update of ``step``, unless loss or gradients are not finite, then or before.

        The optimizer holds the sums over all ranks already. Raises NonfiniteError at once on a CPU,
        where looking costs nothing.
        """
        gradients = [
            p.grad
            for group in optimizer.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        overflow = self._overflow = ~all_finite(gradients)
        fails = ~torch.isfinite(loss)
        scale = None
        if self._scaler is None:
            fails |= overflow
        else:
            scale = self._scaler.scale
            fails |= overflow & (scale < 1)
            self._scaler.update(overflow)
            self._left_out += overflow
        self._failed = torch.where(fails & (self._failed == NEVER), step, self._failed)
        left_out = overflow | self.failed
        with optimizer.skip_synchronize():
            if all(group.get("fused") for group in optimizer.param_groups):
                _step_on_device(optimizer, scale, left_out)
            else:
                _step_from_host(optimizer, gradients, scale, left_out)
        if self._waits:
            self.check()

    @property
    def failed(self) -> torch.Tensor:
        """Whether an update was not made for good, on the device."""
        return self._failed != NEVER

    @property
    def made(self) -> torch.Tensor:
        """Whether the last update was made, on the device."""
        return ~(self._overflow | self.failed)

    def check(self) -> None:
        """Raise NonfiniteError if an update so far was left out as not finite."""
        failed = self._failed.item()
        if failed != NEVER:
            raise NonfiniteError(int(failed))

    def facts(self) -> dict[str, float]:
        """Return what the log tells of fp16: the scale, and how many updates were left out."""
        if self._scaler is None:
            return {}
        return {"loss_scale": self._scaler.scale.item(), "updates_left_out": self._left_out.item()}

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that goes on needs."""
        if self._scaler is None:
            return {}
        return {"scaler": self._scaler.state_dict(), "left_out": self._left_out.item()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(state["scaler"])
            self._left_out.fill_(state["left_out"])


def _step_on_device(
    optimizer: torch.optim.Optimizer, scale: torch.Tensor | None, left_out: torch.Tensor
) -> None:
    """Queue an update that divides by ``scale``, and leaves itself out if so told."""
    if scale is not None:
        optimizer.grad_scale = scale
    optimizer.found_inf = left_out.float()
    optimizer.step()


def _step_from_host(
    optimizer: torch.optim.Optimizer,
    gradients: Sequence[torch.Tensor],
    scale: torch.Tensor | None,
    left_out: torch.Tensor,
) -> None:
    """Wait for what is ``left_out``; if it is not, divide by ``scale`` and update."""
    if left_out:
        return
    if scale is not None:
        for gradient in gradients:
            gradient.div_(scale)
    optimizer.step()
