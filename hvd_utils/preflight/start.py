"""Start MPI, which waits for every rank, and name a rank that does not arrive.

Each rank leaves a file in a folder of its node before it starts MPI. A process beside the node's
first rank looks, after the time limit, whose file is not there or whose process is stopped; Python
itself stands still then.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hvd_utils.cli.errors import BadInput

JOB = ("PMIX_NAMESPACE", "SLURM_STEP_ID", "SLURM_JOB_ID")

# Arguments: seconds, rank, folder, local size, host. Ends with its parent, whose pipe it holds.
WATCH = """
import os, select, shutil, signal, sys, time
seconds, rank, folder, size, host = sys.argv[1:]
parent = os.getppid()
if select.select([0], [], [], float(seconds))[0]:
    sys.exit()
def runs(name):
    try:
        pid = open(f"{folder}/{name}").read()
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] not in "TtDZX"
    except OSError:
        return False
missing = [rank for rank in range(int(size)) if not runs(rank)]
shutil.rmtree(folder, ignore_errors=True)
if missing:
    names = ", ".join(map(str, missing[:4]))
    if missing[4:]:
        names += f" and {len(missing) - 4} more"
    print(f"fail  ranks  no sign of life from local rank {names} of {host} for {seconds} s")
if rank == "0":
    time.sleep(1)
    print(f"fail  ranks  MPI did not start within {seconds} s: a rank named above hangs, or the "
          "hosts do not reach each other (OMPI_MCA_btl_tcp_if_include, firewall)")
    sys.stdout.flush()
    time.sleep(1)
    os.kill(parent, signal.SIGKILL)
"""


def check_launch(environment: Mapping[str, str]) -> None:
    """Raise BadInput where Horovod was launched without MPI, by which the checks are made."""
    if environment.get("HOROVOD_CONTROLLER") == "gloo" and "HOROVOD_RANK" in environment:
        raise BadInput(
            "the preflight speaks MPI: launch it by mpirun, or horovodrun without --gloo; "
            "what it finds holds for a job with --gloo too"
        )


def start_mpi(limit: float) -> Any:
    """Start MPI and return the communicator of all ranks; end the job after ``limit`` seconds."""
    os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")  # ranks may share a core
    os.environ.setdefault("OMPI_MCA_mpi_warn_on_fork", "0")  # nvidia-smi and git are started
    with _watched(limit):
        import mpi4py

        mpi4py.rc.thread_level = "funneled"
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise BadInput(f"cannot start MPI on {socket.gethostname()}: {error}") from error
    return MPI.COMM_WORLD


@contextmanager
def _watched(limit: float) -> Iterator[None]:
    job = next((f"{name}-{os.environ[name]}" for name in JOB if name in os.environ), None)
    local_rank = os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK")
    if job is None or local_rank is None:
        yield
        return
    folder = Path(tempfile.gettempdir()) / f"preflight-{os.getuid()}-{job.replace('/', '-')}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / local_rank).write_text(str(os.getpid()))
    if local_rank != "0":
        yield
        return
    arguments = [
        f"{limit:.0f}",
        os.environ.get("OMPI_COMM_WORLD_RANK", "0"),
        str(folder),
        os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1"),
        socket.gethostname(),
    ]
    watch = subprocess.Popen([sys.executable, "-S", "-c", WATCH, *arguments], stdin=subprocess.PIPE)
    try:
        yield
    finally:
        watch.stdin.close()
        watch.wait()
        shutil.rmtree(folder, ignore_errors=True)
