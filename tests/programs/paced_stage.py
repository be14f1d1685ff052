"""Staging with a pause in every read: ``paced_stage.py SECONDS [the command's own arguments]``.

So that what is done to it falls into the copying of a file. Where the destination has ``{rank}`` in
its name, each rank plays a node of its own, called node0, node1 and so on.
"""

from __future__ import annotations

import socket
import sys
import time

from dali_pipeline import stage
from dali_pipeline.staging import copying
from dali_pipeline.staging.progress import Progress
from hvd_utils.cli.ranks import launched_rank
from hvd_utils.cli.run_main import run_main

PAUSE = float(sys.argv.pop(1))
advance = Progress.advance


def advance_slowly(*arguments) -> None:
    time.sleep(PAUSE)
    advance(*arguments)


Progress.advance = advance_slowly
copying.CHUNK = 1 << 16
if any("{rank}" in argument for argument in sys.argv):
    rank = str(launched_rank())
    sys.argv = [argument.replace("{rank}", rank) for argument in sys.argv]
    socket.gethostname = lambda: f"node{rank}"

if __name__ == "__main__":
    run_main(stage.main)
