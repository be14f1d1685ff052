"""Compile once on each node: one process goes first, the others then find what it compiled.

Eight processes that compile the same at once take the cores from one another, and each asks for
compilers of its own. They share caches, of PyTorch's graphs and of Triton's kernels, in a folder of
the node; a lock on it has one process compile alone, and then all others at the same time. On GPUs
the keys of the graphs are the same only because each process has its own GPU as number 0
(``horovod_backend.node.see_own_gpu_first``).
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "one-compiles.lock"


def share_caches() -> Path:
    """Have PyTorch and Triton keep what they compile in one folder of this node; return it.

    TORCHINDUCTOR_CACHE_DIR and TRITON_CACHE_DIR say otherwise. PyTorch's own default has a folder
    of kernels for each GPU (torch/_inductor/runtime/cache_dir_utils.py).
    """
    import torch._inductor.config

    folder = Path(tempfile.gettempdir(), f"torchinductor-{os.getuid()}")
    folder = Path(os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder)))
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))
    torch._inductor.config.fx_graph_cache = True  # the others find what the first compiled
    return folder


class CompileTurns:
    """A process's turns to compile, one for each new shape of images; ``folder`` has the lock.

    Without a folder nothing is compiled, and no shape is new.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._seen: set[Hashable] = set()

    def is_new(self, shape: Hashable) -> bool:
        """Return whether a pass of this shape will be compiled."""
        return self._folder is not None and shape not in self._seen

    @contextmanager
    def turn(self, shape: Hashable) -> Iterator[None]:
        """Wait for this process's turn, if the shape is new, and keep it for the pass.

        Who holds it never waits for another process: the sums of a backward pass are only begun.
        """
        if self._folder is None or shape in self._seen:
            yield
            return
        with _locked(self._folder):
            yield
        self._seen.add(shape)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: the first alone, those that had to wait together."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("w")
    except OSError:  # PyTorch will tell what is wrong with its cache
        yield
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(file, fcntl.LOCK_SH)
        except OSError:  # a file system without locks: all compile at once
            pass
        yield
