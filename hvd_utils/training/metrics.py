"""Metrics: of a window of training steps, and of a validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from hvd_utils.timing.step_times import StepTimes


class Window(NamedTuple):
    """What happened in the steps since the last report, over all workers."""

    step: int  # updates made in the run so far
    steps: int  # of them in this window
    loss: float  # mean over the window's images
    top1_error: float  # of the training images as they were seen, percent
    lr: float  # of the last update
    seconds: float
    images_per_second: float
    timings: StepTimes | None = None  # of the steps up to the one before the last; None: not known
    scaling: Mapping[str, float] = {}  # of the loss, in fp16


class Errors(NamedTuple):
    """Validation errors in percent, and how many images were counted."""

    top1: float
    top5: float
    images: int
