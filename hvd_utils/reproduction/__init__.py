"""The paper's tables and figures beside runs: ``python -m hvd_utils.paper figures`` and ``plan``.

May import ``paper``, ``inspect``, ``scaling`` and what those import. Start with ``collected``.
"""
