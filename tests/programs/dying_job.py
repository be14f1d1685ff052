"""The job whose process on one host dies while its run is made: ``dying_job.py HOST …``."""

from __future__ import annotations

import os
import sys

import train_imagenet
from hvd_utils.cli.run_main import run_main
from hvd_utils.run import provenance

HOST = sys.argv.pop(1)
environment = provenance.environment


def environment_or_death(world):
    if os.environ.get("HOROVOD_HOSTNAME") == HOST:
        os._exit(9)
    return environment(world)


provenance.environment = environment_or_death

if __name__ == "__main__":
    run_main(train_imagenet.main)
