"""The preflight on ranks of two made-up nodes, of which some are doctored: ``doctored.py WHAT …``.

Ranks 0 and 1 are on node0, the others on node1. With ``odd``, rank 3 has another numpy and other
code and computes slowly, and rank 2 sees other data, given by the variable OTHER_DATA. The clock of
node1 is an hour ahead. With ``stopped``, rank 1 stops itself when it is asked for its facts. With
``gpus``, the ranks are taken to have GPUs: their sums are timed as NCCL's, here by Gloo on the CPU.
With ``healthy``, nothing is doctored. An answer is waited for ten times as long, however busy the
host is; not with ``stopped``, where none comes.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from hvd_utils.cli.run_main import run_main
from hvd_utils.preflight.__main__ import main

rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
what = sys.argv.pop(1)


def be_odd() -> None:
    """Make this rank what its number says."""
    socket.gethostname = lambda: f"node{rank // 2}"
    from hvd_utils.preflight import tasks
    from hvd_utils.preflight.checks import network, software

    if rank >= 2:
        tasks.TASKS["now"] = lambda here, limit: time.time() + 3600
    if rank == 2:
        sys.argv += ["--data", os.environ["OTHER_DATA"]]
    if rank == 3:
        versions = software.package_versions()
        software.package_versions = lambda: versions | {"numpy": "1.0"}
        assert software.ROOT  # the name that the digest is made from
        software.ROOT = Path(os.environ["OTHER_DATA"])
        work = network.work

        def slow_work(*arguments: object, **options: object) -> float:
            return 100 * work(*arguments, **options)

        tasks.TASKS["work"] = slow_work


def stop() -> None:
    """Have rank 1 stop itself in the middle."""
    from hvd_utils.preflight import tasks

    if rank == 1:
        tasks.TASKS["local"] = lambda here, limit: os.kill(os.getpid(), signal.SIGSTOP)


def pretend_gpus() -> None:
    """Have rank 0 believe in GPUs, each rank on a node of its own."""
    socket.gethostname = lambda: f"node{rank}"
    from hvd_utils.preflight.checks import gpu_network
    from hvd_utils.preflight.checks.allreduce import NetworkCheck

    NetworkCheck._on_gpus = lambda check: True
    gpu_network.BYTES = 2**20
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"


def be_patient() -> None:
    """Give rank 0's questions ten times their time."""
    from hvd_utils.preflight.coordinator import Answers, Coordinator

    ask = Coordinator.ask

    def ask_longer(lead: Coordinator, task: str, limit: float, *more: Any, **named: Any) -> Answers:
        return ask(lead, task, 10 * limit, *more, **named)

    Coordinator.ask = ask_longer


# MPI's own start wants the true host's name, so it comes before what is done here.
from mpi4py import MPI  # noqa: E402

assert MPI.COMM_WORLD.Get_rank() == rank
{"odd": be_odd, "stopped": stop, "gpus": pretend_gpus, "healthy": lambda: None}[what]()
if what != "stopped":
    be_patient()
run_main(main)
