"""A step of synchronous SGD, and exact validation.

May import all that is named above it in ``hvd_utils``. Start with ``loops``.
"""
