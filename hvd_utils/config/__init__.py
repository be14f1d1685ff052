"""Every setting of a run, with unit, default and bound, and how recipes and flags are read.

May import ``cli``. Start with ``recipe``: it determines every weight.
"""
