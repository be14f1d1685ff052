"""A run seen from outside: status, final figure, comparison, whether to start it again.

May import ``run`` and what that imports. Start with ``run_state``.
"""
