"""A run's folder: where it stands, what it writes, how it goes on.

May import ``training``, what that imports, and ``dali_pipeline``. Start with ``lifecycle``.
"""
