"""A small Horovod program under the watchdog: ``watched.py FOLDER TIMEOUT [HANGING_RANK]``.

Sums a vector over all ranks for ever. Rank 0 creates FOLDER/running once ten sums are done; from
then on HANGING_RANK, if given, sleeps in Python.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import horovod.torch as hvd
import torch

from hvd_utils import failure
from hvd_utils.rank_files import WAITING
from hvd_utils.watchdog import Watchdog

folder, timeout = Path(sys.argv[1]), float(sys.argv[2])
hangs = int(sys.argv[3]) if len(sys.argv) > 3 else None


def main() -> None:
    hvd.init()
    host = socket.gethostname()
    watchdog = Watchdog(folder, hvd.rank(), hvd.size(), host, timeout, "start it again")
    watchdog.start()
    (folder / f"pid{hvd.rank()}").write_text(str(os.getpid()))
    step = 0
    while True:
        watchdog.at(step, "reading images")
        time.sleep(1000 if step > 10 and hvd.rank() == hangs else 0.01)
        watchdog.at(step, WAITING)
        hvd.allreduce(torch.ones(1000), name="sum")
        step += 1
        if step == 10 and hvd.rank() == 0:
            (folder / "running").touch()


failure.run(main)
