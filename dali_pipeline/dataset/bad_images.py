"""Images that cannot be read or decoded: stop at the first one, or replace them.

The rule of substitution: a bad image is replaced by the next one of the index that is not bad, with
that image's label and its crop of the epoch. It depends on nothing but the files, so minibatches
stay whole and the trajectory is the same for any number of processes. In validation a bad image is
left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from dali_pipeline.dataset.index import BadImage, Index
from hvd_utils.cli.errors import BadInput

FEW = 10  # so many may be bad in any data set
MOST = 0.01  # and this share of a large one; beyond, the storage is at fault and not the images
MOST_OF_ALL = 1_000_000  # and not more of any: every process remembers those that it found
NAMED = 10_000  # of so many, what a list of them says where they are


@dataclass(frozen=True)
class BadList:
    """How many images are bad in all, and where the first ones are, with what is wrong."""

    total: int
    named: dict[str, str]

    def __add__(self, other: BadList) -> BadList:
        """Return both as one list."""
        named = [*self.named.items(), *other.named.items()]
        return BadList(self.total + other.total, dict(named[:NAMED]))


class BadImages:
    """What this process found unreadable in one split."""

    def __init__(self, index: Index, skip: bool) -> None:
        self.index = index
        self._skip = skip
        self.reasons: dict[int, str] = {}

    def add(self, error: BadImage) -> None:
        """Remember a bad image; raise ``error`` if the run is to stop at the first.

        Raises BadInput where so many are bad that something else must be wrong.
        """
        if not self._skip:
            raise error
        self.reasons[error.image] = sys.intern(error.reason)  # of many, few are different
        self._check(self.reasons)

    def everywhere(self, found: Iterable[Mapping[int, str]]) -> BadList:
        """Return the images that any process ``found`` bad.

        Raises BadInput where all together found too many: that does not depend on how many
        processes shared the work.
        """
        reasons: dict[int, str] = {}
        for part in found:
            reasons.update(part)
        self._check(reasons)
        first = sorted(reasons)[:NAMED]
        return BadList(len(reasons), {self.index.whereabouts(i): reasons[i] for i in first})

    def _check(self, reasons: Mapping[int, str]) -> None:
        if len(reasons) > min(max(FEW, MOST * len(self.index)), MOST_OF_ALL):
            image, reason = next(reversed(reasons.items()))
            raise BadInput(
                f"{len(reasons)} of {len(self.index)} images in {self.index.root} cannot be "
                f"read, among them {self.index.whereabouts(image)}: {reason}; check the storage"
            )

    def substitutes(self, ids: np.ndarray) -> np.ndarray:
        """Return ``ids`` with each bad image replaced by the next that is not bad."""
        if not self.reasons or self.reasons.keys().isdisjoint(ids.tolist()):
            return ids
        if len(self.reasons) == len(self.index):
            raise BadInput(f"no image in {self.index.root} can be read: check the storage")
        return np.array([self._next_good(int(image)) for image in ids], dtype=ids.dtype)

    def without(self, ids: np.ndarray) -> np.ndarray:
        """Return ``ids`` without the bad images."""
        return ids[[int(image) not in self.reasons for image in ids]] if self.reasons else ids

    def _next_good(self, image: int) -> int:
        while image in self.reasons:
            image = (image + 1) % len(self.index)
        return image
