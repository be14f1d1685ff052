"""The paper's rules as pure functions, and its figures as data. Needs no torch and no Horovod.

May import ``cli`` and ``config``. Start with ``schedule``: linear scaling, warmup, decay.
"""
