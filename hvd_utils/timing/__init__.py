"""Where a step's time goes, on all ranks, and which rank is slow.

May import ``paper``, ``faults`` and ``horovod_backend``. Start with ``stopwatch``.
"""
