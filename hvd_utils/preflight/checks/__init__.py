"""The checks: each collects facts on every rank, and a pure function judges them on rank 0.

Start with ``table``, which lists them.
"""
