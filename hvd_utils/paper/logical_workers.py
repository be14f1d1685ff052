"""Logical workers: which of the k workers each of P processes carries.

The paper's k workers, n images each, are part of the recipe: they set the minibatch kn, the rate
and the groups over which batch norm is computed. How many processes there are is not. A process
that carries several logical workers runs them one after the other and accumulates their gradients,
which is how the paper ran its largest minibatches (footnote 5); where n images are too few to fill
a device, it runs several in one fused pass, each still normalised by its own n images.
"""

from __future__ import annotations

# A fused pass has at most as many images as keep a large GPU busy, and fewer where memory is small:
# ResNet-50 at 224 pixels in fp32 takes about 0.1 GB an image for its activations.
FUSED_IMAGES = 256
FUSED_IMAGES_PER_GB = 4


def share(workers: int, rank: int, size: int) -> range:
    """Return the logical workers of process ``rank`` of ``size``: consecutive, counts even to one.

    Every worker belongs to exactly one process. ``size`` may not exceed ``workers``, or a process
    would have nothing to do; it need not divide it.
    """
    if not 1 <= size <= workers:
        raise ValueError(f"{workers} workers cannot be shared by {size} processes")
    return range(rank * workers // size, (rank + 1) * workers // size)


def passes(mine: range, fuse: int) -> list[range]:
    """Return the workers of each pass of a process through the model: at most ``fuse``.

    Consecutive, as few passes as possible, counts even to one; ``fuse`` 1 is a pass a worker.
    """
    count = -(-len(mine) // fuse)
    return [mine[len(mine) * i // count : len(mine) * (i + 1) // count] for i in range(count)]


def default_fuse(batch: int, gpu_memory: int | None) -> int:
    """Return how many workers of ``batch`` images fill a GPU of ``gpu_memory`` bytes; 1 on a CPU.

    On a CPU, ``gpu_memory`` None, a pass of several is slower at the paper's n and image size, and
    faster only for few or tiny images: ``python -m benchmarks.fuse`` measures it.
    """
    if gpu_memory is None:
        return 1
    images = min(FUSED_IMAGES, int(FUSED_IMAGES_PER_GB * gpu_memory / 1e9))
    return max(1, images // batch)


def random_seed(seed: int, step: int, worker: int) -> int:
    """Return the seed, uint64, of all that the model draws for one logical worker in one step."""
    key = 0x9E3779B97F4A7C15
    for part in (seed, step, worker):
        key = _mix((key + part * 0xD1342543DE82EF95) % 2**64)
    return key


def _mix(z: int) -> int:
    """Return the 64 bits of ``z`` well mixed (splitmix64, Steele et al. 2014)."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)
