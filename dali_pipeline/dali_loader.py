"""The DALI loader: reads and decodes planned batches ahead of the trainer."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from nvidia.dali.pipeline import Pipeline

from dali_pipeline.ahead import ahead
from dali_pipeline.bad_images import BadImages
from dali_pipeline.encoded import EncodedReader
from dali_pipeline.finish import Finisher
from dali_pipeline.graph import Target, training_graph, validation_graph
from dali_pipeline.index import BadImage, Index, bad_image
from dali_pipeline.interface import Batch
from dali_pipeline.plan import Plan, TrainingBatch, ValidationBatch
from dali_pipeline.undecodable import find_undecodable

READ_AHEAD = 4  # batches planned and read before DALI asks; an epoch's order takes 0.05 s


class DaliLoader:
    """Decodes on the GPU where ``device`` is one, else on ``threads`` CPU threads.

    On a CPU, ``finisher`` does what follows decoding.
    """

    def __init__(
        self,
        plan: Plan,
        device: torch.device,
        threads: int,
        finisher: Callable[[int, int, bool], Finisher] = Finisher,
    ) -> None:
        self._plan = plan
        settings = plan.settings
        self._device = device
        self._threads = threads
        self._target = Target(
            on_gpu=device.type == "cuda",
            resolution=settings.resolution,
            antialias=settings.antialias,
            hw_decoder_load=settings.hw_decoder_load,
            usual_height=settings.usual_height,
            usual_width=settings.usual_width,
        )
        self._validation: _Decoder | None = None
        self._finisher: Finisher | None = None
        if not self._target.on_gpu:
            self._finisher = finisher(threads, settings.resolution, settings.antialias)

    def training(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """Yield training batches; see ``Loader``."""
        plan = self._plan
        feed = _Feed(
            plan.train,
            plan.bad_train,
            places=lambda: plan.training_places(first_step, last_step),
            plan=lambda place: plan.training_batch(*place),
            on_gpu=self._target.on_gpu,
        )
        return self._decoder(training_graph, feed, plan.training_size).batches()

    def validation(self) -> Iterator[Batch]:
        """Yield validation batches; see ``Loader``. The pipeline is built once and kept."""
        plan = self._plan
        if self._validation is None:
            feed = _Feed(
                plan.val,
                plan.bad_val,
                plan.validation_ids,
                plan.validation_batch,
                on_gpu=self._target.on_gpu,
            )
            self._validation = self._decoder(validation_graph, feed, plan.settings.val_batch)
        return self._validation.batches()

    def _decoder(self, graph: Callable, feed: _Feed, largest: int) -> _Decoder:
        prefetch = self._plan.settings.prefetch

        def build() -> Pipeline:
            pipeline = graph(
                feed,
                self._target,
                batch_size=largest,
                # On a CPU one more, so that no core waits for another's last image of a batch.
                num_threads=self._threads + (self._finisher is not None),
                device_id=self._device.index if self._target.on_gpu else None,
                prefetch_queue_depth=prefetch,
            )
            pipeline.build()
            return pipeline

        return _Decoder(build, feed, self._finisher, self._device, prefetch)


class _Decoder:
    """A DALI pipeline that is built again behind a batch whose images it could not decode."""

    def __init__(
        self,
        build: Callable[[], Pipeline],
        feed: _Feed,
        finisher: Finisher | None,
        device: torch.device,
        prefetch: int,
    ) -> None:
        self._build = build
        self._feed = feed
        self._finisher = finisher
        self._device = device
        self._prefetch = prefetch
        self._pipeline: Pipeline | None = None

    def batches(self) -> Iterator[Batch]:
        """Yield decoded batches until the feed ends; afterwards it can be run again."""
        self._feed.rewind()
        while True:
            self._pipeline = self._pipeline or self._build()
            try:
                # On a GPU, DALI works ahead by itself; on a CPU, decoding and finishing have to.
                if self._finisher is None:
                    yield from map(self._on_gpu, self._decoded())
                else:
                    decoded = ahead(self._decoded(), 1)
                    yield from ahead(map(self._finished, decoded), self._prefetch)
                self._pipeline.reset()
                return
            except RuntimeError as error:
                self._pipeline = None
                self._feed.blame(error)

    def _decoded(self) -> Iterator[tuple[Any, TrainingBatch | ValidationBatch]]:
        """Yield DALI's output with the batch that it is."""
        while True:
            try:
                (images,) = self._pipeline.run()
            except StopIteration:
                return
            yield images, self._feed.delivered()

    def _on_gpu(self, decoded: tuple[Any, TrainingBatch | ValidationBatch]) -> Batch:
        images, batch = decoded
        pixels = torch.from_dlpack(images.as_tensor()).permute(0, 3, 1, 2)
        return pixels, torch.from_numpy(batch.labels).to(self._device)

    def _finished(self, decoded: tuple[Any, TrainingBatch | ValidationBatch]) -> Batch:
        images, batch = decoded
        pixels = [torch.from_dlpack(image) for image in images]
        if isinstance(batch, TrainingBatch):
            finished = self._finisher.training(pixels, batch.flips)
        else:
            placement = batch.placement
            finished = self._finisher.validation(pixels, placement.size, placement.corner)
        return finished, torch.from_numpy(batch.labels)


class _Read(NamedTuple):
    """A planned batch with the bytes of its images, and which of the places it is at."""

    number: int
    batch: TrainingBatch | ValidationBatch
    encoded: list[np.ndarray]

    def inputs(self, on_gpu: bool) -> tuple:
        """Return what the graph takes."""
        batch = self.batch
        if isinstance(batch, ValidationBatch):
            placement = (batch.placement.size, batch.placement.corner) if on_gpu else ()
            return self.encoded, *placement
        window = batch.windows
        start = np.stack([window.top, window.left], axis=1)
        shape = np.stack([window.height, window.width], axis=1)
        return self.encoded, start, shape, *((batch.flips,) if on_gpu else ())


class _Feed:
    """Planned batches and their bytes on the way to DALI, until they are decoded."""

    def __init__(
        self,
        index: Index,
        bad: BadImages,
        places: Callable[[], Iterable],
        plan: Callable[[Any], TrainingBatch | ValidationBatch],
        on_gpu: bool,
    ) -> None:
        self._index = index
        self._bad = bad
        self._places = places
        self._plan = plan
        self._on_gpu = on_gpu
        self._reader = EncodedReader(index)
        self._pending: deque[_Read] = deque()  # with DALI, which does not copy their bytes
        self._done = 0  # places behind us

    def __iter__(self) -> Iterator[tuple]:
        """Yield the inputs of the graph, from the first place that was not delivered."""
        self._pending.clear()
        places = itertools.islice(enumerate(self._places()), self._done, None)
        for read in ahead(itertools.starmap(self._read, places), READ_AHEAD):
            if len(read.batch.ids):
                self._pending.append(read)
                yield read.inputs(self._on_gpu)

    def _read(self, number: int, place: Any) -> _Read:
        while True:
            batch = self._plan(place)
            try:
                return _Read(number, batch, self._reader.read(batch.ids))
            except BadImage as error:
                self._bad.add(error)

    def rewind(self) -> None:
        """Begin at the first place again."""
        self._done = 0

    def delivered(self) -> TrainingBatch | ValidationBatch:
        """Return the batch that DALI has just decoded, and do not read it again."""
        read = self._pending.popleft()
        self._done = read.number + 1
        return read.batch

    def blame(self, error: RuntimeError) -> None:
        """Find what stopped DALI, which does not name it; raise ``error`` if no image did."""
        found = [
            bad_image(self._index, image, reason)
            for read in self._pending
            for image, reason in find_undecodable(read.batch.ids, read.encoded)
        ]
        if not found:
            raise error
        for bad in found:
            self._bad.add(bad)
