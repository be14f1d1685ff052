"""tqdm, with a lock for this process alone.

Its own is a semaphore between processes, which none here needs; where a process ends at once,
Python 3.14 reports that it was left behind.
"""

from __future__ import annotations

import threading

from tqdm import tqdm

__all__ = ["tqdm"]

tqdm.set_lock(threading.RLock())
