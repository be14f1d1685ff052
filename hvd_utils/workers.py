"""Which of the k logical workers each of P processes carries.

The paper's k workers, n images each, are part of the recipe: they set the minibatch kn, the rate
and the groups over which batch norm is computed. How many processes there are is not. A process
that carries several logical workers runs them one after the other and accumulates their gradients,
which is how the paper ran its largest minibatches (footnote 5).
"""

from __future__ import annotations


def share(workers: int, rank: int, size: int) -> range:
    """Return the logical workers of process ``rank`` of ``size``: consecutive, counts even to one.

    Every worker belongs to exactly one process. ``size`` may not exceed ``workers``, or a process
    would have nothing to do; it need not divide it.
    """
    if not 1 <= size <= workers:
        raise ValueError(f"{workers} workers cannot be shared by {size} processes")
    return range(rank * workers // size, (rank + 1) * workers // size)
