"""The job with a pause in every step: ``paced_job.py SECONDS [the job's own arguments]``.

So that what is done to it from outside falls into its run, however fast the machine is. Where the
environment has PACED_UNTIL, the pauses end once a file of that name exists.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import train_imagenet
from hvd_utils.cli.run_main import run_main
from hvd_utils.training import loops

PAUSE = float(sys.argv.pop(1))
UNTIL = Path(os.environ.get("PACED_UNTIL", "/nowhere"))
set_rate = loops.set_rate


def set_rate_slowly(*arguments) -> None:
    if not UNTIL.exists():
        if PAUSE > 60:
            print("paused", flush=True)
        time.sleep(PAUSE)
    set_rate(*arguments)


loops.set_rate = set_rate_slowly

if __name__ == "__main__":
    run_main(train_imagenet.main)
