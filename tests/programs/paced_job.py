"""The job with a pause in every step: ``paced_job.py SECONDS [the job's own arguments]``.

So that what is done to it from outside falls into its run, however fast the machine is.
"""

from __future__ import annotations

import sys
import time

import train_imagenet
from hvd_utils.cli.run_main import run_main
from hvd_utils.training import loops

PAUSE = float(sys.argv.pop(1))
set_rate = loops.set_rate


def set_rate_slowly(*arguments) -> None:
    time.sleep(PAUSE)
    set_rate(*arguments)


loops.set_rate = set_rate_slowly

if __name__ == "__main__":
    run_main(train_imagenet.main)
