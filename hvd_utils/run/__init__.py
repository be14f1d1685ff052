"""A run's folder: its state, its records, its lifecycle.

May import ``training``, what that imports, and ``dali_pipeline``. Start with ``lifecycle``.
"""
