"""The learning rate as a pure function of the step (sections 2.1, 2.2 and 5.1).

Beside the paper's steps there are the smooth decays of later work, from the end of warmup to 0.

Steps are iterations, counted from 0 over the whole run. Epochs need not be a whole number of
steps: epoch ``e`` begins at the step nearest to ``e * N / kn``, so that the paper's 90 epochs of
1,281,167 images at kn = 8,192 are 14,075 steps, 782 of them warmup.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvd_utils.config.recipe import Recipe


def first_step(epoch: float, num_images: int, minibatch: int) -> int:
    """Return the step at which ``epoch`` begins, rounded to whole minibatches (section 5.1).

    Halves round up; the result is exact for whole epochs of any length.
    """
    if float(epoch).is_integer():
        return (2 * int(epoch) * num_images + minibatch) // (2 * minibatch)
    return int(epoch * num_images / minibatch + 0.5)


def epoch_ends(epochs: int, num_images: int, minibatch: int) -> list[int]:
    """Return the step at which each epoch ends and the next begins."""
    return [first_step(epoch + 1, num_images, minibatch) for epoch in range(epochs)]


def epoch_at(step: int, num_images: int, minibatch: int) -> int:
    """Return the epoch to which ``step`` belongs: the last that begins there or before."""
    return (minibatch * (2 * step + 1) - 1) // (2 * num_images)


def linear_scaling(reference_rate: float, minibatch: int, reference_minibatch: int) -> float:
    """Return the rate for ``minibatch`` = kn images: k times the batch, k times the rate (2.1).

    The paper's reference is 0.1 for 256 images, so 8,192 images give 3.2. A float for every
    minibatch, below the reference and between its multiples too.
    """
    return reference_rate * minibatch / reference_minibatch


def square_root_scaling(reference_rate: float, minibatch: int, reference_minibatch: int) -> float:
    """Return the rate scaled by the square root of the minibatch, a control of Table 2(a)."""
    return reference_rate * (minibatch / reference_minibatch) ** 0.5


def no_scaling(reference_rate: float, minibatch: int, reference_minibatch: int) -> float:
    """Return the unscaled reference rate, a control of Table 2(a)."""
    return reference_rate


SCALINGS = {"linear": linear_scaling, "sqrt": square_root_scaling, "none": no_scaling}


def gradual_warmup(step: int, warmup_steps: int, start: float, target: float) -> float:
    """Return the rate during gradual warmup: from ``start`` by a constant amount a step (2.2).

    Step 0 trains at ``start`` and step ``warmup_steps`` is the first at ``target``.
    """
    return start + (target - start) * min(step / warmup_steps, 1.0) if warmup_steps else target


def constant_warmup(step: int, warmup_steps: int, start: float, target: float) -> float:
    """Return the rate during constant warmup, a control: ``start``, then a jump (section 2.2)."""
    return start if step < warmup_steps else target


def no_warmup(step: int, warmup_steps: int, start: float, target: float) -> float:
    """Return the target rate from the first step on, a control (Table 1)."""
    return target


WARMUPS = {"gradual": gradual_warmup, "constant": constant_warmup, "none": no_warmup}


def step_decay(step: int, decay_steps: Sequence[int], factor: float) -> float:
    """Return what the rate is multiplied by: ``factor`` for each boundary passed (section 5.1)."""
    return factor ** sum(step >= boundary for boundary in decay_steps)


def share_done(step: int, first: int, end: int) -> float:
    """Return which share of the steps from ``first`` to ``end`` is done at ``step``, 0 to 1."""
    return min(max((step - first) / max(end - first, 1), 0.0), 1.0)


def cosine_decay(done: float, power: float) -> float:
    """Return half a cosine wave from 1 to 0 (Loshchilov & Hutter 2017, without restarts).

    ``done`` is the share of the decay that is done, 0 to 1.
    """
    return (1 + math.cos(math.pi * done)) / 2


def polynomial_decay(done: float, power: float) -> float:
    """Return (1 - done)^power, from 1 to 0, as LARS's authors use it with power 2 (You 2017)."""
    return (1 - done) ** power


SMOOTH_DECAYS = {"cosine": cosine_decay, "polynomial": polynomial_decay}


@dataclass(frozen=True)
class Schedule:
    """The learning rate of every step of a run: ``schedule(step)``.

    ``reference_rate`` is where warmup starts, ``target_rate`` where it ends; ``warmup`` is a name
    in ``WARMUPS``; ``decay`` is ``step`` or a name in ``SMOOTH_DECAYS``, which run from
    ``decay_start`` to ``end``. Lengths are in steps.
    """

    reference_rate: float
    target_rate: float
    warmup: str
    warmup_steps: int
    decay: str
    decay_steps: tuple[int, ...]
    decay_factor: float
    decay_power: float
    decay_start: int
    end: int

    def __call__(self, step: int) -> float:
        """Return the learning rate that the update of ``step`` uses."""
        warm = WARMUPS[self.warmup](step, self.warmup_steps, self.reference_rate, self.target_rate)
        return warm * self._decay(step)

    def _decay(self, step: int) -> float:
        if self.decay == "step":
            return step_decay(step, self.decay_steps, self.decay_factor)
        done = share_done(step, self.decay_start, self.end)
        return SMOOTH_DECAYS[self.decay](done, self.decay_power)


def make_schedule(recipe: Recipe, num_images: int, minibatch: int) -> Schedule:
    """Build the schedule of ``recipe`` for a training set and a global minibatch kn, in images.

    Warmup is used only where the minibatch is larger than the reference (section 2.2): up to it,
    the rate is small enough from the start.
    """
    warmup = recipe.warmup if minibatch > recipe.reference_minibatch else "none"
    warmup_steps = first_step(recipe.warmup_epochs, num_images, minibatch)
    return Schedule(
        reference_rate=recipe.reference_rate,
        target_rate=SCALINGS[recipe.scaling](
            recipe.reference_rate, minibatch, recipe.reference_minibatch
        ),
        warmup=warmup,
        warmup_steps=warmup_steps,
        decay=recipe.decay,
        decay_steps=tuple(first_step(e, num_images, minibatch) for e in recipe.decay_epochs),
        decay_factor=recipe.decay_factor,
        decay_power=recipe.decay_power,
        decay_start=0 if warmup == "none" else warmup_steps,
        end=first_step(recipe.epochs, num_images, minibatch),
    )
