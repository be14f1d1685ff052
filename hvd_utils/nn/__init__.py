"""The network and how it computes: models, batch norm, precision, memory format, compilation.

May import ``cli``, ``config``, ``paper`` and ``networks``. Start with ``models``.
"""
