"""The order of images in minibatches: pure functions of the seed (Remark 4).

Each epoch is one random permutation of the whole training set. Minibatch ``s`` of kn images takes
places ``s * kn`` to ``(s + 1) * kn`` of the permutations laid end to end, and logical worker ``j``
takes the ``j``-th run of n of them. So no image is ever dropped: what does not fill the last
minibatch of an epoch opens the first one of the next. Nothing here depends on the number of
processes or on what was computed before.

The permutation is computed place by place (``bijection``), so that its length costs nothing. Runs
that began before there was that one go on with a permutation that is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from dali_pipeline.sampling.bijection import images_of_places, random_words

# Of each --order. Replaced by a new number whenever the same seed gives another order: a run must
# keep its order.
VERSIONS = {"stored": 2, "computed": 3}

# The order of an epoch: a version's name, or a function of seed, epoch and places (``windows``).
Order = str | Callable[[int, int, np.ndarray], np.ndarray]


def images_in_epoch(
    seed: int, epoch: int, places: np.ndarray, num_images: int, order: Order = "computed"
) -> np.ndarray:
    """Return the image ids, int64, at these places of an epoch: one shuffle of all (Remark 4).

    Where ``order`` is a function, its own.
    """
    if callable(order):
        return order(seed, epoch, places)
    if order == "computed":
        return images_of_places(seed, epoch, places, num_images)
    return permutation(seed, epoch, num_images)[places]


@lru_cache(maxsize=2)  # a minibatch touches at most two epochs
def permutation(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """Return the epoch's stored order of all image ids, int64 (num_images,).

    The ids are sorted by random words. Each word has the id in its lowest bits, so no two are equal
    and any sorting algorithm gives the same order.
    """
    words = random_words(seed, epoch, num_images)
    id_bits = np.uint64(num_images.bit_length())
    words = (words >> id_bits << id_bits) | np.arange(num_images, dtype=np.uint64)
    words.sort()
    order = (words & ((np.uint64(1) << id_bits) - np.uint64(1))).astype(np.int64)
    order.setflags(write=False)  # it is cached
    return order


def images_at(
    seed: int, first: int, count: int, num_images: int, order: Order = "computed"
) -> tuple[np.ndarray, np.ndarray]:
    """Return epochs and image ids, int64 (count,) each, of a run of places of the whole job."""
    places = np.arange(first, first + count)
    epochs, offsets = places // num_images, places % num_images
    ids = np.empty(count, dtype=np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        ids[here] = images_in_epoch(seed, int(epoch), offsets[here], num_images, order)
    return epochs, ids


def pass_images(
    seed: int,
    step: int,
    fused: range,
    *,
    workers: int,
    batch: int,
    num_images: int,
    order: Order = "computed",
) -> tuple[np.ndarray, np.ndarray]:
    """Return epochs and image ids, each of shape (len(fused) · batch,), of one pass of a step.

    ``workers`` is k, ``batch`` is n. ``fused`` are the logical workers that go through the model
    together; their images alternate: image i of the j-th of them is at place i · len(fused) + j,
    as ``WorkerBatchNorm2d`` takes them.
    """
    first = (step * workers + fused.start) * batch
    epochs, ids = images_at(seed, first, len(fused) * batch, num_images, order)
    by_worker = len(fused), batch
    return epochs.reshape(by_worker).T.ravel(), ids.reshape(by_worker).T.ravel()


def worker_images(
    seed: int,
    step: int,
    worker: int,
    *,
    workers: int,
    batch: int,
    num_images: int,
    order: Order = "computed",
) -> tuple[np.ndarray, np.ndarray]:
    """Return epochs and image ids, each of shape (batch,), for one logical worker's part of a step.

    ``workers`` is k, ``batch`` is n; see the module's text for the rule.
    """
    alone = range(worker, worker + 1)
    sizes = {"workers": workers, "batch": batch, "num_images": num_images}
    return pass_images(seed, step, alone, **sizes, order=order)
