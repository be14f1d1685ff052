"""The DALI loader: read and decode planned batches ahead of the trainer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import torch
from nvidia.dali.pipeline import Pipeline

from dali_pipeline.dataset.index import Index
from dali_pipeline.loading.dali.cpu_transforms import CpuTransforms
from dali_pipeline.loading.dali.feed import Feed
from dali_pipeline.loading.dali.graph import Target, training_graph, validation_graph
from dali_pipeline.loading.interface import Batch
from dali_pipeline.loading.prefetch import prefetched
from dali_pipeline.loading.to_device import HeldBatches, current_stream, in_16_bits, upload
from dali_pipeline.sampling.augmentation import augments
from dali_pipeline.sampling.image_size import largest_side
from dali_pipeline.sampling.plan import Plan, TrainingBatch, ValidationBatch

CPU_GROUP = 64  # images that DALI decodes at once on a CPU, in whole batches, so that no core waits
IMAGENETS_LARGEST = 6430, 5980  # height and width in pixels (NVIDIA's ResNet-50 example)


class DaliLoader:
    """Decodes on ``threads`` CPU threads, or on a GPU where the plan's settings say so.

    On a CPU, ``cpu_transforms`` does what follows decoding. Images that are augmented are decoded
    there too: torchvision's operations would have the host wait for the GPU, image by image.
    --decode auto has to be decided before (``decoding.choose``).
    """

    def __init__(
        self,
        plan: Plan,
        device: torch.device,
        threads: int,
        cpu_transforms: Callable[[int, int, bool], CpuTransforms] = CpuTransforms,
    ) -> None:
        self._plan = plan
        settings = plan.settings
        self._device = device
        self._threads = threads
        on_gpu = device.type == "cuda" and not augments(settings)
        decode = settings.decode if on_gpu else "cpu"
        self._target = Target(
            on_gpu=on_gpu,
            decode=decode,
            validation_side=plan.validation_side,
            antialias=settings.antialias,
            largest=largest_image(plan.train, settings.largest_height, settings.largest_width)
            if decode != "cpu"  # the sizes of all images are read for it
            else (0, 0),
            half=on_gpu and in_16_bits(settings),
        )
        self._validation: _Decoder | None = None
        self._cpu_transforms: CpuTransforms | None = None
        if not self._target.on_gpu:
            self._cpu_transforms = cpu_transforms(
                threads, largest_side(settings), settings.antialias
            )

    def training(self, first_step: int, last_step: int) -> Generator[Batch]:
        """Yield training batches; see ``Loader``."""
        plan = self._plan
        feed = Feed(
            plan.train,
            plan.bad_train,
            places=lambda: plan.training_places(first_step, last_step),
            plan=lambda place: plan.training_batch(*place),
            group=self._group(plan.training_size),
            on_gpu=self._target.on_gpu,
        )
        return self._decoder(training_graph, self._target, feed, plan.training_size).batches()

    def _group(self, largest: int) -> int:
        return 1 if self._target.on_gpu else max(1, CPU_GROUP // largest)

    def validation(self) -> Iterator[Batch]:
        """Yield validation batches; see ``Loader``. The pipeline is built once and kept."""
        plan = self._plan
        if self._validation is None:
            feed = Feed(
                plan.val,
                plan.bad_val,
                plan.validation_ids,
                plan.validation_batch,
                group=self._group(plan.settings.val_batch),
                on_gpu=self._target.on_gpu,
            )
            # Its buffers may grow: little is read, and those of training take memory enough.
            target = self._target._replace(largest=(0, 0))
            size = plan.settings.val_batch
            self._validation = self._decoder(validation_graph, target, feed, size)
        return self._validation.batches()

    def _decoder(self, graph: Callable, target: Target, feed: Feed, largest: int) -> _Decoder:
        prefetch = self._plan.settings.prefetch

        def build() -> Pipeline:
            pipeline = graph(
                feed,
                target,
                batch_size=largest * self._group(largest),
                # On a CPU one more, so that no core waits for another's last image of a batch.
                num_threads=self._threads + (self._cpu_transforms is not None),
                device_id=self._device.index if self._target.on_gpu else None,
                prefetch_queue_depth=prefetch,
                exec_dynamic=True,  # in which DALI leaves a batch alone as long as it is held
            )
            pipeline.build()
            return pipeline

        return _Decoder(build, feed, self._cpu_transforms, self._device, prefetch)


class _Decoder:
    """A DALI pipeline that is built again behind a batch whose images it could not decode."""

    def __init__(
        self,
        build: Callable[[], Pipeline],
        feed: Feed,
        cpu_transforms: CpuTransforms | None,
        device: torch.device,
        prefetch: int,
    ) -> None:
        self._build = build
        self._feed = feed
        self._cpu_transforms = cpu_transforms
        self._device = device
        self._prefetch = prefetch
        self._pipeline: Pipeline | None = None
        self._held = HeldBatches()

    def batches(self) -> Generator[Batch]:
        """Yield decoded batches until the feed ends; afterwards it can be run again."""
        self._feed.rewind()
        try:
            while not (yield from self._until_undecodable()):
                pass
        finally:
            self._held.clear()

    def _until_undecodable(self) -> Generator[Batch, None, bool]:
        """Yield decoded batches; return whether the feed has ended, or images are bad."""
        self._pipeline = self._pipeline or self._build()
        try:
            # On a GPU, DALI prefetches; on a CPU, decoding and transforms are prefetched here.
            if self._cpu_transforms is None:
                yield from map(self._on_gpu, self._decoded())
            else:
                decoded = prefetched(self._decoded(), 1)
                yield from prefetched(map(self._finished, _one_by_one(decoded)), self._prefetch)
            self._pipeline.reset()
            return True
        except RuntimeError as error:
            self._pipeline = None
            self._feed.raise_undecodable(error)
            return False

    def _decoded(self) -> Iterator[tuple[Any, list[TrainingBatch | ValidationBatch]]]:
        """Yield DALI's output with the batches that it is."""
        stream = None if self._cpu_transforms else current_stream(self._device)
        while True:
            try:
                (images,) = self._pipeline.run(stream)
            except StopIteration:
                return
            yield images, self._feed.delivered()

    def _on_gpu(self, decoded: tuple[Any, list[TrainingBatch | ValidationBatch]]) -> Batch:
        images, (batch,) = decoded
        pixels = torch.from_dlpack(images.as_tensor()).permute(0, 3, 1, 2)
        return self._held.hold(pixels), upload(batch.labels, self._device)

    def _finished(self, decoded: tuple[list, TrainingBatch | ValidationBatch]) -> Batch:
        pixels, batch = decoded
        if isinstance(batch, TrainingBatch):
            finished = self._cpu_transforms.training(pixels, batch)
        else:
            placement = batch.placement
            finished = self._cpu_transforms.validation(
                pixels, placement.size, placement.corner, batch.side
            )
        labels = torch.from_numpy(batch.labels)
        if self._device.type == "cpu":
            return finished, labels
        with torch.cuda.device(self._device):  # else this thread pins for the first GPU
            finished, labels = (
                part.pin_memory().to(self._device, non_blocking=True) for part in (finished, labels)
            )
        return finished, labels


def _one_by_one(decoded: Iterable) -> Iterator[tuple[list, TrainingBatch | ValidationBatch]]:
    """Yield the images of each batch separately."""
    for images, batches in decoded:
        pixels = (torch.from_dlpack(image) for image in images)
        for batch in batches:
            yield list(itertools.islice(pixels, len(batch.ids))), batch


def largest_image(index: Index, height: int | None, width: int | None) -> tuple[int, int]:
    """Return height and width in pixels that buffers are made for, as the settings say.

    Those that are None are of the largest image of a prepared index, else of ImageNet's.
    """
    known = IMAGENETS_LARGEST
    if index.prepared:
        known = int(index.heights.max()), int(index.widths.max())
    return known[0] if height is None else height, known[1] if width is None else width
