"""Preflight: check all ranks before a job and print one table.

horovodrun -np 2 python -m hvd_utils.preflight --data digits --recipe demo      a laptop
horovodrun -np 256 python -m hvd_utils.preflight --data DIR --output RUN        before the job
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from hvd_utils.cli.errors import EXIT_FAILED
from hvd_utils.cli.run_main import GRACE_SECONDS, run_main
from hvd_utils.preflight.options import NEED_A_CHILD, read_options
from hvd_utils.preflight.start import check_launch, start_mpi

if TYPE_CHECKING:
    from hvd_utils.preflight.messages import Mailbox
    from hvd_utils.preflight.this_rank import ThisRank

LAST_RESORT = 3.0  # seconds after the time limit, when a rank leaves whatever it is doing


def main(arguments: Sequence[str] | None = None) -> None:
    """Check, and leave with the code of ``verdict.exit_code``; the ranks end together."""
    began = time.monotonic()
    check_launch(os.environ)
    options, settings = read_options(arguments)

    from hvd_utils.preflight.child import Child

    child = Child() if NEED_A_CHILD & set(options.checks) else None  # imports while MPI starts
    comm = start_mpi(options.time_limit)

    from hvd_utils.preflight.messages import Mailbox
    from hvd_utils.preflight.this_rank import ThisRank

    here = ThisRank(comm.Get_rank(), comm.Get_size(), options, settings, comm, child)
    crowd = int(os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", 1)) // (os.cpu_count() or 1)
    mail = Mailbox(comm, crowd)
    # MPI's start waits for the slowest, so the ranks' clocks agree from here on.
    until = max(began + options.time_limit, time.monotonic() + options.time_limit / 2)
    if here.rank == 0:
        _lead(here, mail, began, until)
    _serve(here, mail, until)


def _lead(here: ThisRank, mail: Mailbox, began: float, until: float) -> NoReturn:
    """Ask, judge and print; whatever happens, the table is printed before the time is over."""
    from hvd_utils.preflight.checks.table import Preflight
    from hvd_utils.preflight.coordinator import Coordinator
    from hvd_utils.preflight.report import show

    lead = Coordinator(here, mail, until)
    preflight = Preflight(lead)
    once = threading.Lock()

    def break_off(why: str) -> None:
        if once.acquire(blocking=False):
            _leave(here, show(lead, preflight, began, why))

    died = "ended by the launcher or the scheduler: a rank died, or the job was stopped"
    signal.signal(signal.SIGTERM, lambda *_: break_off(died))
    signal.signal(signal.SIGINT, lambda *_: break_off("interrupted"))
    hangs = f"not over after {here.options.time_limit} s: MPI hangs on rank 0"
    _at(until, lambda: break_off(hangs))
    preflight.run()
    once.acquire()
    code = show(lead, preflight, began)
    lead.dismiss(code)
    _end(here, code, everybody=not lead.silent)


def _serve(here: ThisRank, mail: Mailbox, until: float) -> NoReturn:
    """Serve rank 0's requests; if it stops answering, print that and leave."""
    from hvd_utils.preflight.coordinator import serve

    def orphaned() -> None:
        if here.rank > 1:
            time.sleep(GRACE_SECONDS)  # rank 1 prints it for all
        print(
            f"fail  ranks  rank 0 ({here.hosts.get(0, 'host unknown')}) does not answer rank "
            f"{here.rank} ({here.host}): look at its process and its host",
            flush=True,
        )
        _leave(here, EXIT_FAILED)

    _at(until + 2 * LAST_RESORT, orphaned)
    code = serve(here, mail, until + LAST_RESORT)
    if code is None:
        orphaned()
    _end(here, code, everybody=True)


def _at(when: float, act: Callable[[], None]) -> None:
    """Act at a monotonic time, though the main thread may be inside MPI."""
    timer = threading.Timer(max(0.1, when - time.monotonic()), act)
    timer.daemon = True
    timer.start()


def _end(here: ThisRank, code: int, everybody: bool) -> NoReturn:
    """Leave with a code: in MPI's good manners if everybody is there to join in."""
    if everybody and code == 0:
        from mpi4py import MPI

        MPI.Finalize()
    _leave(here, code)


def _leave(here: ThisRank, code: int) -> NoReturn:
    if here.child:
        here.child.close()
    sys.stdout.flush()
    time.sleep(0.3 if here.rank == 0 else 0)  # the launcher may drop what comes at the very end
    os._exit(code)


if __name__ == "__main__":
    run_main(main)
