"""Run a program on one core of this process's: that of its local rank. Launched on every rank.

``mpirun -np 2 python -m benchmarks.harness.one_core train_imagenet.py --loader synthetic``, or
with ``-m`` and a module: every candidate of a benchmark gets its cores the same way.
"""

from __future__ import annotations

import os
import runpy
import sys

LOCAL_RANKS = ("OMPI_COMM_WORLD_LOCAL_RANK", "HOROVOD_LOCAL_RANK", "LOCAL_RANK")


def main() -> None:
    """Keep to one core, then become the program."""
    rank = next((int(os.environ[name]) for name in LOCAL_RANKS if name in os.environ), 0)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    sys.argv = sys.argv[1:]
    if sys.argv[0] == "-m":
        sys.argv = sys.argv[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
