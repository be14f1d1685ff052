"""Checks on all ranks before a job: what would go wrong in it.

Each check collects plain values on every rank, and a pure function on rank 0 judges them. What may
crash or hang (torch, Horovod, DALI, the data's file system) runs in a child process.

May import all but ``run``, ``inspect``, ``report`` and ``scaling``. Start with ``checks/table``.
"""
