"""What every command shares: one-line errors, exit codes, ranks, argument types, progress bars.

Imports nothing of this project. Start with ``errors`` and ``run_main``.
"""
