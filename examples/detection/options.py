"""The command line of ``mask_rcnn.py``, and the learning rate of its steps."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hvd_utils.cli.argument_types import above_zero, positive, whole
from hvd_utils.cli.parser import Parser
from hvd_utils.config.settings import Settings
from hvd_utils.paper.schedule import WARMUPS, Schedule, first_step, linear_scaling

# Table 3b's row of 8 GPUs: 160,000 steps of 16 images at a rate of 0.02. With fewer images a step
# there are more steps, so that each row sees as many images.
REFERENCE_RATE, REFERENCE_MINIBATCH = 0.02, 16
IMAGES = 160_000 * REFERENCE_MINIBATCH
DECAY_AT, DECAY_FACTOR = 0.75, 0.1  # He et al. 2017, section 3.1: at step 120,000 of 160,000

# Section 2.2 finds constant warmup helpful for detectors, whose heads are new. How long and how
# low it does not say: Detectron, its authors' program, has 500 steps from a third of the rate on.
WARMUP_IMAGES, WARMUP_SHARE = 500 * REFERENCE_MINIBATCH, 1 / 3

# What determines the weights, beside the project's settings: the paper's values, and for small
# pictures on a CPU.
PAPER = {
    "images": IMAGES,
    "rate": REFERENCE_RATE,
    "warmup": "constant",
    "warmup_images": WARMUP_IMAGES,
    "min_size": 800,
    "max_size": 1333,
    "rois": 512,
    "width": 256,
}
SMALL = {
    "images": 6000,
    "warmup_images": 400,
    "min_size": 128,
    "max_size": 256,
    "rois": 32,
    "width": 32,
}


def schedule(minibatch: int, options: argparse.Namespace) -> Schedule:
    """Return the learning rate of each step: the linear rule, warmup, and one decay (Table 3b).

    Lengths are in images, so a smaller minibatch, in images, has as many more steps.
    """
    rate = linear_scaling(options.rate, minibatch, REFERENCE_MINIBATCH)
    end = first_step(1, options.images, minibatch)
    return Schedule(
        reference_rate=rate * WARMUP_SHARE,
        target_rate=rate,
        warmup=options.warmup,
        warmup_steps=first_step(1, options.warmup_images, minibatch),
        decay="step",
        decay_steps=(first_step(DECAY_AT, options.images, minibatch),),
        decay_factor=DECAY_FACTOR,
        decay_power=1,
        decay_start=0,
        end=end,
    )


def read_options(arguments: Sequence[str]) -> tuple[argparse.Namespace, Settings]:
    """Return the example's options, and the project's settings that it uses.

    Raises BadInput naming what cannot be.
    """
    given: dict[str, Any] = vars(_parser().parse_args(arguments))
    options = argparse.Namespace(**{**PAPER, **(SMALL if given.pop("small") else {}), **given})
    options.experiment = {name: getattr(options, name) for name in PAPER}
    settings = Settings(
        recipe="mask_rcnn",
        data=str(options.data),
        output=options.output,
        model=options.model,
        init=options.init,
        workers=options.workers,
        batch_per_worker=options.batch_per_worker,
        precision=options.precision,
        seed=options.seed,
        device=options.device,
        nesterov=False,
    )
    return options, settings


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="mask_rcnn.py",
        description="Train Mask R-CNN on data in COCO's format. Defaults are the paper's.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="train2017, val2017, annotations")
    add("--output", type=Path, metavar="DIR", help="folder of the run, to go on there (runs/...)")
    add("--init", metavar="WEIGHTS", help="of the backbone: a run, a file, torchvision/resnet50")
    add("--model", default="resnet50", metavar="NAME", help="backbone, a ResNet (%(default)s)")
    add("--workers", type=positive, metavar="K", help="logical workers (as many as processes)")
    add("--batch-per-worker", type=positive, default=2, metavar="N", help="images (%(default)s)")
    add("--seed", type=whole, default=1, metavar="N")
    add("--precision", choices=("fp32", "tf32", "fp64"), default="fp32")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--checkpoint-every", type=positive, default=1000, metavar="STEPS")
    add("--log-every", type=positive, default=20, metavar="STEPS")
    add("--max-steps", type=positive, metavar="N", help="stop after so many steps of the run")
    add("--small", action="store_true", help=f"for small pictures on a CPU: {SMALL}")
    for name, kind, text in (
        ("--images", positive, "length of training"),
        ("--rate", above_zero, f"learning rate for {REFERENCE_MINIBATCH} images a step"),
        ("--warmup-images", whole, "length of warmup"),
        ("--min-size", positive, "shorter side that pictures are resized to, pixels"),
        ("--max-size", positive, "most that the longer side may become, pixels"),
        ("--rois", positive, "regions sampled of a picture"),
        ("--width", positive, "channels of the pyramid and of the mask's head"),
    ):
        usual = PAPER[name[2:].replace("-", "_")]
        add(name, type=kind, default=argparse.SUPPRESS, metavar="N", help=f"{text} ({usual})")
    add("--warmup", choices=tuple(WARMUPS), default=argparse.SUPPRESS, help="(constant)")
    return parser
