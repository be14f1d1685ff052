"""The order of ``--shuffle window``: shards are shuffled, and images within windows of them.

A departure from Remark 4, by which images that are trained on one after the other lie near one
another, so that storage is read in few large pieces. An epoch lays the shards end to end in a
random order. Each of the k logical workers has a run of that sequence to itself. It cuts its run
into windows and shuffles each by itself: what WebDataset's workers do with a buffer, but computed.

So the order depends on seed, epoch, the shards, k, n and the window, and not on the number of
processes. Every image comes once an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

import numpy as np

from dali_pipeline.dataset.index import Index
from dali_pipeline.sampling.bijection import ROUNDS, mix, permuted, random_words
from hvd_utils.cli.errors import BadInput

VERSION = 1  # replaced by a new number whenever the same seed gives another order


@dataclass(frozen=True, eq=False)
class WindowOrder:
    """The order of images in windows.

    ``begins``, int64 (shards + 1,), are the first image of each shard and their number in all.
    ``workers`` is k, ``batch`` is n, ``window`` the images of a worker's window.
    """

    begins: np.ndarray
    workers: int
    batch: int
    window: int

    def __call__(self, seed: int, epoch: int, places: np.ndarray) -> np.ndarray:
        """Return the image ids, int64, at these places of an epoch."""
        keys = random_words(seed, epoch, 3 * ROUNDS)[ROUNDS:]  # the first are the other order's
        run_begins, run_length, within = self._runs(places)
        number = within // self.window
        lengths = np.minimum(self.window, run_length - number * self.window)
        own = mix(keys[ROUNDS:, None] + mix((run_begins + number * self.window).astype(np.uint64)))
        moved = np.empty_like(places)
        for length in np.unique(lengths).tolist():  # that of most, and of each run's last
            some = lengths == length
            inside = within[some] % self.window
            moved[some] = permuted(inside, length, own[:, some])
        return self._images(keys[:ROUNDS], run_begins + number * self.window + moved)

    def _runs(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return where the run of each place begins in the sequence, its length, and where it is.

        The images that do not fill a minibatch are a run by themselves, at the end.
        """
        minibatch = self.workers * self.batch
        steps = int(self.begins[-1]) // minibatch
        step, rest = places // minibatch, places % minibatch
        length = steps * self.batch
        begins = np.where(step < steps, rest // self.batch * length, steps * minibatch)
        within = np.where(step < steps, step * self.batch + rest % self.batch, rest)
        last = int(self.begins[-1]) - steps * minibatch
        return begins, np.where(step < steps, length, last), within

    def _images(self, keys: np.ndarray, sequence: np.ndarray) -> np.ndarray:
        """Return the images at these places of the shards laid end to end."""
        shards, ends = _shuffled(self, tuple(keys.tolist()))
        at = np.searchsorted(ends, sequence, side="right")
        return self.begins[shards[at] + 1] - (ends[at] - sequence)

    def digest(self) -> str:
        """Return a checksum of how the images lie in shards, which the order depends on."""
        return sha256(self.begins.astype("<i8").tobytes()).hexdigest()


@lru_cache(maxsize=2)  # a minibatch touches at most two epochs
def _shuffled(order: WindowOrder, keys: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return an epoch's order of shards, and where each ends when they are laid end to end."""
    count = len(order.begins) - 1
    shards = permuted(np.arange(count), count, np.array(keys, np.uint64))
    return shards, np.cumsum(np.diff(order.begins)[shards])


def window_order(index: Index, workers: int, batch: int, window: int) -> WindowOrder:
    """Return the order of an index by windows of ``window`` images, those of all workers together.

    A worker's is never less than its images of a step. Raises BadInput where there are no shards.
    """
    if not index.packed:
        raise BadInput(
            f"--shuffle window is for images in shards, and {index.root or 'the synthetic set'} "
            "has none: pack them (python -m dali_pipeline.prepare FOLDER --pack PACKED), or leave "
            "it out"
        )
    # Images lie in the index in the order of their shards. Were they not, the order would still be
    # a shuffle of all of them, only not one of neighbours.
    shards = np.arange(1, len(index.shards), dtype=index.shard.dtype)  # of another, all is copied
    inner = np.searchsorted(index.shard, shards)
    begins = np.concatenate([[0], np.maximum.accumulate(inner), [len(index)]]).astype(np.int64)
    return WindowOrder(begins, workers, batch, max(batch, window // workers))
