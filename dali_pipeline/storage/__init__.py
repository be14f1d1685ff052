"""Where the bytes of shards come from: this machine's files, or an object store with a cache.

Of ``hvd_utils`` it may import ``cli``. Start with ``interface``, then ``remote``.
"""
