"""The network and how it computes: models, batch norm, precision, memory format, compilation.

May import ``cli``, ``config`` and ``paper``. Start with ``models`` and ``batch_norm``.
"""
