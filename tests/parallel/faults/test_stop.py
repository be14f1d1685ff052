"""Ranks inside Horovod that are told to stop while they wait for one that is not coming."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
from support.launching import LAUNCHERS, kill_tree

from hvd_utils.cli.errors import EXIT_RESUME

LIMIT = 240

# Rank 0 waits for ever in C++ for rank 1, whose part of the sum never comes.
JOB = f"""
import os, sys, time
from hvd_utils.faults.signals import StopRequest
stop = StopRequest()
import horovod.torch as hvd, torch
hvd.init()
hvd.allreduce(torch.ones(1), name="both")
def leave():
    print("leaves", hvd.rank(), stop.signal_name, flush=True)
    os._exit({EXIT_RESUME})
stop.if_ignored(1.0, leave)
print("ready", hvd.rank(), os.getpid(), flush=True)
if hvd.rank() == 1:
    time.sleep(600)
hvd.allreduce(torch.ones(1), name="one")
"""


@contextlib.contextmanager
def two_ranks(by: str) -> Iterator[tuple[subprocess.Popen, list[int]]]:
    """Launch the job; give its launcher and the process ids of its ranks once they wait."""
    process = subprocess.Popen(
        [*LAUNCHERS[by], "2", sys.executable, "-c", JOB],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMPI_MCA_mpi_yield_when_idle": "1"},
    )
    try:
        pids = {}
        while len(pids) < 2:
            line = process.stdout.readline()
            assert line, "the job ended before its ranks were ready"
            if "ready" in line:
                _, rank, pid = line[line.index("ready") :].split()
                pids[int(rank)] = int(pid)
        yield process, [pids[0], pids[1]]
    finally:
        kill_tree(process)
        process.communicate()


@pytest.mark.parametrize("by", ["mpirun", "gloo"])
def test_no_rank_lives_on_without_its_launcher(by):
    with two_ranks(by) as (process, pids):
        ranks = [psutil.Process(pid) for pid in pids]
        process.kill()
        _, alive = psutil.wait_procs(ranks, timeout=LIMIT)
        for rank in alive:
            rank.kill()
    assert not alive


def test_two_ctrl_c_end_a_rank_that_waits_in_horovod():
    with two_ranks("mpirun") as (process, (waiting, _)):
        for _ in range(2):
            os.kill(waiting, signal.SIGINT)
            time.sleep(0.3)  # two of a kind that are on their way together arrive as one
        output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert "error: interrupted" in output
