"""The job, then a line of each rank: its memory that no file backs, MB.

Where the environment has KILLED_IN, rank 1 kills itself in that step of the launch.
"""

from __future__ import annotations

import os
import signal
from itertools import count

import train_imagenet
from dali_pipeline.benchmarking.index.growth import private_megabytes
from hvd_utils.cli.ranks import launched_rank
from hvd_utils.cli.run_main import run_main
from hvd_utils.training import loops

KILLED_IN = int(os.environ.get("KILLED_IN", "0"))
set_rate, steps = loops.set_rate, count(1)


def set_rate_or_die(*arguments) -> None:
    if next(steps) == KILLED_IN and launched_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    set_rate(*arguments)


loops.set_rate = set_rate_or_die


def main() -> None:
    train_imagenet.main()
    os.write(1, f"private memory: {private_megabytes():.0f} MB\n".encode())


if __name__ == "__main__":
    run_main(main)
