"""Horovod's timeline of some steps: when each tensor waited, and when it travelled.

https://horovod.readthedocs.io/en/stable/timeline_include.html
"""

from __future__ import annotations

import os
from pathlib import Path

import horovod.torch as hvd

LATER = "DYNAMIC"  # HOROVOD_TIMELINE's value where one may be begun later


def start_timeline(path: Path) -> bool:
    """Begin to write the timeline of all ranks to ``path``; only rank 0 calls this.

    Return False where there is none: without other ranks nothing travels, and a HOROVOD_TIMELINE
    that the user has set stays as it is. Raises OSError if the file cannot be written.
    """
    if hvd.size() == 1 or os.environ.get("HOROVOD_TIMELINE") != LATER:
        return False
    path.write_text("")  # Horovod itself would say nothing of a file that it cannot write
    hvd.start_timeline(str(path))
    return True


def stop_timeline() -> None:
    """End it; its file is complete."""
    hvd.stop_timeline()
