"""Progress bars: tqdm, and whether there is a terminal to draw on.

tqdm's own lock is a semaphore between processes, which nothing here needs. Where a process ends at
once, Python 3.14 reports it as leaked. So tqdm is given a lock of this process.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TextIO

from tqdm import tqdm

from hvd_utils.cli.ranks import RANK_VARIABLES

__all__ = ["open_terminal", "terminal", "tqdm"]

tqdm.set_lock(threading.RLock())


def open_terminal() -> TextIO | None:
    """Return the ``terminal``, open, that shows any name; None where there is none of this user.

    Behind ``su`` it belongs to who logged in.
    """
    path = terminal()
    try:
        return open(path, "w", encoding="utf-8", errors="backslashreplace") if path else None
    except OSError:
        return None


def terminal() -> str | None:
    """Return the terminal on which somebody looks on, None where output goes to a file or pipe.

    Open MPI gives every rank a terminal of its own and passes on whole lines only, tagged under
    horovodrun. So the terminal that counts, and on which a bar can be drawn, is the launcher's.
    """
    if not any(name in os.environ for name in RANK_VARIABLES):
        return os.ttyname(1) if sys.stdout.isatty() else None
    try:
        shown_on = os.readlink(f"/proc/{os.getppid()}/fd/1")
    except OSError:
        return None
    return shown_on if shown_on.startswith(("/dev/pts/", "/dev/tty")) else None
