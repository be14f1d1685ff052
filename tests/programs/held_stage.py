"""Staging that stops after so many reads: ``held_stage.py READS [the command's own arguments]``.

It goes on once the file that RELEASED names is there. Where the destination has ``{rank}`` in its
name, each rank plays a node of its own, called node0, node1 and so on.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from pathlib import Path

from dali_pipeline import stage
from dali_pipeline.staging import copying
from dali_pipeline.staging.progress import Progress
from hvd_utils.cli.ranks import launched_rank
from hvd_utils.cli.run_main import run_main

READS = threading.Semaphore(int(sys.argv.pop(1)))
RELEASED = Path(os.environ.get("RELEASED", "/none"))
advance = Progress.advance


def advance_or_wait(*arguments) -> None:
    if not READS.acquire(blocking=False):
        while not RELEASED.exists():
            time.sleep(0.05)
    advance(*arguments)


Progress.advance = advance_or_wait
copying.CHUNK = 1 << 16
if any("{rank}" in argument for argument in sys.argv):
    rank = str(launched_rank())
    sys.argv = [argument.replace("{rank}", rank) for argument in sys.argv]
    socket.gethostname = lambda: f"node{rank}"

if __name__ == "__main__":
    run_main(stage.main)
