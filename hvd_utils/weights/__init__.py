"""Weights in and out: published ones to start from, a run's own for other programs.

May import ``nn``, ``run``, ``inspect`` and what those import. Start with ``trained``.
"""
