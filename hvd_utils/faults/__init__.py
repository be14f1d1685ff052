"""Told to stop, hanging, crashed, or two jobs in one folder: how a process notices. Needs no torch.

May import ``cli``. Start with ``signals`` and ``watchdog``.
"""
