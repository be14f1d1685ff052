"""A shuffle that is computed, place by place: a keyed bijection on [0, N) in integer arithmetic.

A Feistel network over two digits in bases a and b, a · b just above N (Black and Rogaway 2002,
"Ciphers with arbitrary finite domains", the generalized-Feistel cipher). Each round adds a random
function of one digit to the other, which can be undone, so the whole is one to one. What comes out
at N or above goes through again, until it is below N (cycle walking, ibid.). A place costs the same
for any N, and nothing is kept: no permutation of N numbers in memory.
"""

from __future__ import annotations

import math

import numpy as np

# Of the network; NIST's FF1 (SP 800-38G) has 10. With 16, chi-squared does not tell the
# permutations of 7 images, which mix slowest, from equally likely ones; with 12 it does.
ROUNDS = 16


def mix(z: np.ndarray) -> np.ndarray:
    """Return SplitMix64's output function of uint64 ``z`` (Steele, Lea and Flood 2014)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def random_words(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the first ``count`` words, uint64, of an epoch's stream.

    It is the stream of ``Philox`` (Salmon et al. 2011), which NumPy promises to keep (NEP 19).
    """
    return np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(count)


def images_of_places(seed: int, epoch: int, places: np.ndarray, num_images: int) -> np.ndarray:
    """Return the image ids, int64, at these places of an epoch's order, each from 0 to N - 1.

    ``num_images``, N, may be any number up to 2^62.
    """
    return permuted(places, num_images, random_words(seed, epoch, ROUNDS))


def permuted(places: np.ndarray, length: int, keys: np.ndarray) -> np.ndarray:
    """Return where the bijection of these keys takes ``places``, int64, each from 0 to length - 1.

    ``keys`` are uint64: (ROUNDS,), or (ROUNDS, places), for each place a bijection of its own.
    """
    moved = _network(places.astype(np.uint64), length, keys)
    while (outside := np.flatnonzero(moved >= np.uint64(length))).size:
        some = keys[:, outside] if keys.ndim > 1 else keys
        moved[outside] = _network(moved[outside], length, some)
    return moved.astype(np.int64)


def bases(num_images: int) -> tuple[int, int]:
    """Return a and b, about √N each, with the least a · b ≥ N of that a.

    a is even: a sum in two odd bases makes even permutations alone.
    """
    a = math.isqrt(num_images - 1) + 1
    a += a % 2
    return a, -(-num_images // a)


def _network(numbers: np.ndarray, num_images: int, keys: np.ndarray) -> np.ndarray:
    """Return where the network takes each of ``numbers``, uint64, all below a · b."""
    a, b = (np.uint64(base) for base in bases(num_images))
    changed, other = numbers // b, numbers % b
    base, base_of_other = a, b
    for key in keys:
        # 32 random bits times the base, without their lower half: uniform below the base.
        random = (mix(other + key) >> np.uint64(32)) * base >> np.uint64(32)
        total = changed + random
        total = np.minimum(total, total - base)  # modulo the base: what is negative wraps around
        changed, other = other, total
        base, base_of_other = base_of_other, base
    return changed * b + other  # the number of rounds is even: each digit is back in its place
