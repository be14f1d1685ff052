"""What every command shares: one-line errors, exit codes, ranks, argument types, progress bars.

May import nothing of this project. Start with ``errors`` and ``run_main``.
"""
