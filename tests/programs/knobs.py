"""The job with one variant of communication after another in a launch.

``horovodrun -np P python knobs.py DATA OUTPUT NAME=OPTIONS...``; Horovod reads its
variables in the first, so only buckets and compression may differ within a launch.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from trajectories import EXPERIMENT, smooth

import train_imagenet
from hvd_utils.cli.run_main import run_main
from hvd_utils.nn import models


def main() -> None:
    data, output, *variants = sys.argv[1:]
    build_model = models.build_model
    models.build_model = lambda *a, **b: smooth(build_model(*a, **b))
    for variant in variants:
        name, _, options = variant.partition("=")
        folder = ("--data", data, "--output", str(Path(output) / name))
        rest = ("--max-steps", "10", "--loader-threads", "1", *shlex.split(options))
        sys.argv[1:] = [*EXPERIMENT, *folder, *rest]
        train_imagenet.main()


if __name__ == "__main__":
    run_main(main)
