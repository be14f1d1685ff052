"""Import PyTorch, Horovod and DALI, which takes seconds."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# PyTorch's profiler (--profile) reads this when PyTorch is loaded; else it prints its stages.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")


@contextmanager
def quick_imports() -> Iterator[None]:
    """Collect no garbage while the block imports: there is none, and looking is a quarter of it.

    The modules are not scanned later either, until the process ends: then libraries need to free
    what is theirs, and complain of what is left.
    """
    was_enabled, modules = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > modules:
            gc.freeze()
            atexit.register(gc.unfreeze)
        if was_enabled:
            gc.enable()
