"""Which image, which crop, which size, at every step: pure functions of the seed. NumPy only.

May import ``dataset``, and ``cli``, ``config``, ``paper`` of ``hvd_utils``. Start with ``order``.
"""
