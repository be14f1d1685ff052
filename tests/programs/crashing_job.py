"""The job, in which a library ends rank 1 while it decodes: ``crashing_job.py …``."""

from __future__ import annotations

import ctypes
import os

import train_imagenet
from dali_pipeline.loading.dali.feed import Feed
from hvd_utils.cli.run_main import run_main

delivered, batches = Feed.delivered, []


def delivered_or_crash(self):
    batches.append(1)
    if os.environ.get("OMPI_COMM_WORLD_RANK") == "1" and len(batches) == 8:
        ctypes.string_at(0)
    return delivered(self)


Feed.delivered = delivered_or_crash

if __name__ == "__main__":
    run_main(train_imagenet.main)
