"""A page about one or more runs: ``python -m hvd_utils.report RUN [RUN ...]``.

May import ``cli``, ``paper``, ``timing`` and ``inspect``. Start with ``page``.
"""
