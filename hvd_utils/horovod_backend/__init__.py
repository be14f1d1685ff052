"""The only package that imports Horovod: processes, sums, buckets, elastic worlds.

May import ``cli``, ``config``, ``paper`` and ``nn``. Start with ``world``.
"""
