"""Weights in and out: published ones to start from, a run's own for others; their evaluation.

May import ``nn``, ``training``, ``run``, ``inspect`` and what those import. Start with ``trained``.
"""
