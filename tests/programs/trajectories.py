"""The job, several times a launch: ``horovodrun -np P python trajectories.py DATA OUTPUT NAMES``.

Every variant trains k = 8 workers of 4 images for 16 steps, over warmup, two decays and 7 epochs
that are no whole number of steps, and ends with a checkpoint in a folder of OUTPUT.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import horovod.torch as hvd
from torch import nn

import train_imagenet
from hvd_utils.cli.run_main import run_main
from hvd_utils.nn import models
from hvd_utils.paper.logical_workers import share

STEPS = 16
EXPERIMENT = (
    *("--recipe", "demo", "--resolution", "16", "--val-resize", "20", "--workers", "8"),
    *("--batch-per-worker", "4", "--reference-minibatch", "8", "--reference-rate", "0.0125"),
    *("--weight-decay", "0.0001", "--flip", "--min-crop-area", "0.08"),
    *("--warmup-epochs", "2", "--epochs", "8"),
    *("--max-steps", str(STEPS), "--log-every", "10", "--keep-checkpoints", "1"),
)
STEP_DECAY = ("--decay-epochs", "4,6")
DOUBLE = ("--precision", "fp64")
LARS = ("--optimizer", "lars", "--trust-coefficient", "0.2", "--decay", "cosine")
FUSED = ("--fuse-workers", "3")
AUGMENTED = (
    *("--augment", "trivial", "--erase", "0.5", "--mixup", "0.2", "--cutmix", "1"),
    *("--label-smoothing", "0.1"),
)


def as_it_is(model: nn.Module) -> nn.Module:
    return model


def with_dropout(model: nn.Module) -> nn.Module:
    model.fc = nn.Sequential(nn.Dropout(0.5), model.fc)
    return model


def smooth(model: nn.Module) -> nn.Module:
    """Replace ReLU, in whose kink rounding can switch an activation on or off."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, nn.SiLU())
    return model


def overflowing(model: nn.Module) -> nn.Module:
    """Have the gradients of logical worker 5 overflow in the fourth step, wherever it runs."""
    mine, passes = share(8, hvd.rank(), hvd.size()), count()

    def overflow(module: nn.Module, given: tuple, taken: tuple) -> tuple | None:
        fourth = 3 * len(mine) + 5 - mine.start
        return (given[0] * math.inf,) if next(passes) == fourth and 5 in mine else None

    model.fc.register_full_backward_hook(overflow)
    return smooth(model)


VARIANTS: dict[str, tuple[Callable[[nn.Module], nn.Module], tuple[str, ...]]] = {
    "fp64": (as_it_is, DOUBLE),
    "fp64-fused": (as_it_is, DOUBLE + FUSED),
    "fp64-recomputed": (as_it_is, (*DOUBLE, *FUSED, "--recompute-statistics", "50")),
    "fp64-rate-inside": (as_it_is, (*DOUBLE, "--momentum-form", "rate-inside")),
    "fp64-dropout": (with_dropout, DOUBLE),
    "fp64-synthetic": (as_it_is, (*DOUBLE, "--loader", "synthetic", "--synthetic-images", "72")),
    "fp64-lars": (as_it_is, (*DOUBLE, *LARS, "--label-smoothing", "0.1")),
    "fp64-augmented": (as_it_is, DOUBLE + AUGMENTED),
    "fp64-augmented-fused": (as_it_is, DOUBLE + AUGMENTED + FUSED),
    "fp32": (smooth, ()),
    "fp32-fused": (smooth, FUSED),
    "fp64-compiled": (as_it_is, (*DOUBLE, "--compile", "default")),
    "fp64-channels-first": (as_it_is, (*DOUBLE, "--no-channels-last")),
    "bf16": (smooth, ("--precision", "bf16")),
    "fp16": (overflowing, ("--precision", "fp16", "--resolution", "8")),
}


def main() -> None:
    data, output, *names = sys.argv[1:]
    build_model = models.build_model
    for name in names:
        change, options = VARIANTS[name]
        models.build_model = lambda *a, change=change, **b: change(build_model(*a, **b))
        decay = () if "--decay" in options else STEP_DECAY
        folder = ("--data", data, "--output", str(Path(output) / name))
        sys.argv[1:] = [*EXPERIMENT, *folder, "--loader-threads", "1", *decay, *options]
        train_imagenet.main()


if __name__ == "__main__":
    run_main(main)
