"""The job with a pause of PAUSE seconds in every step, until Slurm starts it again.

From step HELD on a pause lasts until the job is told to stop, or very long: what is done to a
first start from outside falls into its run, however late it is done. The pause does not come as
an argument: launch.sh puts its own first.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import train_imagenet
from hvd_utils.cli.run_main import run_main
from hvd_utils.faults.signals import StopRequest
from hvd_utils.training import loops

HELD, HELD_SECONDS = 9, 60
STARTED_AGAIN = int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0
PAUSE = 0.0 if STARTED_AGAIN else float(os.environ["PAUSE"])

requests: list[StopRequest] = []
set_rate = loops.set_rate
steps = itertools.count(1)


class KnownStopRequest(StopRequest):
    def __init__(self) -> None:
        super().__init__()
        requests.append(self)


def set_rate_slowly(*arguments) -> None:
    pause = HELD_SECONDS if PAUSE and next(steps) >= HELD else PAUSE
    end = time.monotonic() + pause
    while time.monotonic() < end and not any(request.requested for request in requests):
        time.sleep(0.05)
    set_rate(*arguments)


train_imagenet.StopRequest = KnownStopRequest
loops.set_rate = set_rate_slowly

if __name__ == "__main__":
    run_main(train_imagenet.main)
