"""The side of the model's images, in pixels, as a pure function of the step.

Progressive resizing: training begins with small crops, which are quick, and their side grows with
the epochs (Howard et al., fast.ai's DAWNBench entry, 2018; here with the ramp of Leclerc et al.,
ffcv-imagenet, 2022: linear in the epoch, in multiples of 32 so that few shapes occur). Validation
may be at a larger side than training: a random crop shows objects larger than a central one does
(Touvron et al. 2019, "Fixing the train-test resolution discrepancy").

A minibatch has one side, that of the epoch to which its step belongs, also where it holds the
first images of the next. So the side depends neither on the processes nor on where a run began.
"""

from __future__ import annotations

from hvd_utils.config.recipe import Recipe
from hvd_utils.paper.schedule import epoch_at

MULTIPLE = 32  # pixels: what a ResNet reduces an image by


def ramp_side(epoch: int, first: int, last: int, ramp: tuple[float, float]) -> int:
    """Return the side in ``epoch``: ``first`` until ``ramp`` begins, ``last`` from its end on.

    In between it is the nearest multiple of 32, or one of the two if they are none.
    """
    begin, end = ramp
    if epoch <= begin or epoch >= end:
        return first if epoch <= begin else last
    exact = first + (last - first) * (epoch - begin) / (end - begin)
    return min(max(MULTIPLE * int(exact / MULTIPLE + 0.5), first), last)


def training_side(recipe: Recipe, step: int, num_images: int) -> int:
    """Return the side of the crops of ``step``; ``num_images`` is the length of an epoch."""
    if recipe.resolution_from is None:
        return recipe.resolution
    epoch = epoch_at(step, num_images, recipe.workers * recipe.batch_per_worker)
    return ramp_side(epoch, recipe.resolution_from, recipe.resolution, recipe.resolution_ramp)


def validation_side(recipe: Recipe) -> int:
    """Return the side of validation's central crops."""
    return recipe.val_resolution or recipe.resolution


def largest_side(recipe: Recipe) -> int:
    """Return the largest side that occurs in a run."""
    return max(recipe.resolution, validation_side(recipe))
