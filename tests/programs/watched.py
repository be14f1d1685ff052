"""A small Horovod program under the watchdog: ``watched.py FOLDER TIMEOUT [RANK sleeps|stops]``.

Sums a vector over all ranks for ever. Rank 0 creates FOLDER/running after ten sums; then RANK, if
given, sleeps in Python, or stops as by SIGSTOP.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import horovod.torch as hvd
import torch

from hvd_utils.cli.run_main import run_main
from hvd_utils.faults.heartbeat import WAITING
from hvd_utils.faults.watchdog import Watchdog

FOLDER, TIMEOUT = Path(sys.argv[1]), float(sys.argv[2])
HANGS, HOW = (int(sys.argv[3]), sys.argv[4]) if len(sys.argv) > 3 else (None, None)


def main() -> None:
    hvd.init()
    host = socket.gethostname()
    watchdog = Watchdog(FOLDER, hvd.rank(), hvd.size(), host, TIMEOUT, "start it again")
    watchdog.start()
    step = 0
    while True:
        watchdog.beat(step, "reading images")
        time.sleep(0.01)
        if step == 10 and hvd.rank() == HANGS:
            hang()
        watchdog.beat(step, WAITING)
        hvd.allreduce(torch.ones(1000), name="sum")
        step += 1
        if step == 10 and hvd.rank() == 0:
            (FOLDER / "running").touch()


def hang() -> None:
    if HOW == "stops":
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(100_000)


run_main(main)
