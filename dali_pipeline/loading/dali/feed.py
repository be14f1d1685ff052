"""The input of DALI's graph: planned batches with their bytes, and where to restart."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from dali_pipeline.dataset.bad_images import BadImages
from dali_pipeline.dataset.index import BadImage, Index, bad_image
from dali_pipeline.loading.dali.diagnose import find_undecodable
from dali_pipeline.loading.dali.reader import EncodedReader
from dali_pipeline.loading.prefetch import prefetched
from dali_pipeline.sampling.plan import TrainingBatch, ValidationBatch
from hvd_utils.faults import in_flight

READ_AHEAD = 4  # batches planned and read ahead of DALI


class _Planned(NamedTuple):
    """A place, its number, and its batch as planned when so many bad images were known.

    The batch is None where the storage need not hear of it beforehand.
    """

    number: int
    place: Any
    batch: TrainingBatch | ValidationBatch | None = None
    known_bad: int = 0


class _Read(NamedTuple):
    """A planned batch with the bytes of its images, and which of the places it is at."""

    number: int
    batch: TrainingBatch | ValidationBatch
    encoded: list[np.ndarray]

    def columns(self, on_gpu: bool) -> tuple[np.ndarray, ...]:
        """Return what the graph takes beside the bytes."""
        batch = self.batch
        if isinstance(batch, ValidationBatch):
            return (batch.placement.size, batch.placement.corner) if on_gpu else ()
        window = batch.windows
        start = np.stack([window.top, window.left], axis=1)
        shape = np.stack([window.height, window.width], axis=1)
        if not on_gpu:
            return start, shape
        return start, shape, np.full_like(shape, batch.side), batch.flips


class Feed:
    """Planned batches and their bytes on the way to DALI, until they are decoded.

    ``places`` returns the places of the batches from the beginning, ``plan`` the batch of a place;
    DALI decodes ``group`` batches at once.
    """

    def __init__(
        self,
        index: Index,
        bad: BadImages,
        places: Callable[[], Iterable],
        plan: Callable[[Any], TrainingBatch | ValidationBatch],
        group: int,
        on_gpu: bool,
    ) -> None:
        self._index = index
        self._bad = bad
        self._places = places
        self._plan = plan
        self._group = group  # batches that DALI decodes at once
        self._on_gpu = on_gpu
        self._reader = EncodedReader(index)
        self._pending: deque[list[_Read]] = deque()  # with DALI, which does not copy their bytes
        self._done = 0  # places behind us

    def __iter__(self) -> Iterator[tuple]:
        """Yield the inputs of the graph, from the first place that was not delivered."""
        self._pending.clear()
        places = itertools.islice(enumerate(self._places()), self._done, None)
        reads = prefetched(map(self._read, self._announced(places)), READ_AHEAD)
        reads = (read for read in reads if len(read.batch.ids))
        while group := list(itertools.islice(reads, self._group)):
            self._pending.append(group)
            in_flight.note(map(self._index.whereabouts, self._pending_ids()))
            encoded = [image for read in group for image in read.encoded]
            columns = zip(*(read.columns(self._on_gpu) for read in group), strict=True)
            yield encoded, *map(np.concatenate, columns)

    def _announced(self, places: Iterator[tuple[int, Any]]) -> Iterator[_Planned]:
        """Yield places, each after the storage heard of the images some batches ahead."""
        if not self._index.storage.ahead:
            yield from itertools.starmap(_Planned, places)
            return
        ahead: deque[tuple[_Planned, int]] = deque()
        images = 0
        for number, place in places:
            known_bad = len(self._bad.reasons)
            batch = self._plan(place)
            self._index.expect(batch.ids.tolist())
            images += len(batch.ids)
            ahead.append((_Planned(number, place, batch, known_bad), images))
            while ahead and images - ahead[0][1] >= self._index.storage.ahead:
                yield ahead.popleft()[0]
        yield from (planned for planned, _ in ahead)

    def _pending_ids(self) -> list[int]:
        return [i for group in self._pending for read in group for i in read.batch.ids.tolist()]

    def _read(self, planned: _Planned) -> _Read:
        batch = planned.batch
        if planned.known_bad != len(self._bad.reasons):  # some of its images may be replaced
            batch = None
        while True:
            if batch is None:
                batch = self._plan(planned.place)
            try:
                return _Read(planned.number, batch, self._reader.read(batch.ids))
            except BadImage as error:
                self._bad.add(error)
                batch = None

    def rewind(self) -> None:
        """Begin at the first place again."""
        self._done = 0

    def delivered(self) -> list[TrainingBatch | ValidationBatch]:
        """Return the batches that DALI has just decoded, and do not read them again."""
        group = self._pending.popleft()
        self._done = group[-1].number + 1
        return [read.batch for read in group]

    def raise_undecodable(self, error: RuntimeError) -> None:
        """Find what stopped DALI, which does not name it; raise ``error`` if no image did."""
        found = [
            bad_image(self._index, image, reason)
            for group in self._pending
            for read in group
            for image, reason in find_undecodable(read.batch.ids, read.encoded)
        ]
        if not found:
            raise error
        for bad in found:
            self._bad.add(bad)
