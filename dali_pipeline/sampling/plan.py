"""The plan of one process: its batches, with every random choice already made.

The loaders carry a plan out and decide nothing, so they can be compared image by image, and a run
can begin at any step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dali_pipeline.dataset.bad_images import BadImages, BadList
from dali_pipeline.dataset.index import BadImage, Index
from dali_pipeline.sampling.augmentation import Operations, erased_windows, trivial_operations
from dali_pipeline.sampling.crops import (
    Placement,
    Stream,
    Windows,
    central_placement,
    flips,
    training_windows,
)
from dali_pipeline.sampling.image_size import training_side, validation_side
from dali_pipeline.sampling.mixing import Mixing, mixing
from dali_pipeline.sampling.order import VERSIONS, Order, pass_images
from dali_pipeline.sampling.windows import VERSION, WindowOrder, window_order
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import Settings


@dataclass(frozen=True)
class TrainingBatch:
    """The images of one pass: those of one logical worker, or of several in turn."""

    ids: np.ndarray  # int64 (images,)
    labels: np.ndarray  # int64 (images,)
    windows: Windows
    flips: np.ndarray  # int32 (images,), 0 or 1
    side: int  # pixels that each window becomes, in both directions
    operations: Operations | None = None  # on the pixels of that size
    erased: Windows | None = None  # of them


@dataclass(frozen=True)
class ValidationBatch:
    """Up to ``val_batch`` validation images."""

    ids: np.ndarray  # int64 (images,)
    labels: np.ndarray  # int64 (images,)
    placement: Placement
    side: int  # pixels


@dataclass(frozen=True)
class Plan:
    """The share of one process.

    ``passes`` are the logical workers that this process carries, pass by pass; ``rank`` of ``size``
    processes determines its validation images. Raises BadInput where one minibatch is more than
    the training set, or the shuffle needs shards and there are none.
    """

    train: Index
    val: Index
    settings: Settings
    passes: list[range]
    rank: int
    size: int
    bad_train: BadImages = field(init=False)
    bad_val: BadImages = field(init=False)
    order: Order = field(init=False)

    def __post_init__(self) -> None:
        skip = self.settings.on_bad_image == "skip"
        object.__setattr__(self, "bad_train", BadImages(self.train, skip))
        object.__setattr__(self, "bad_val", BadImages(self.val, skip))
        workers, batch = self.settings.workers, self.settings.batch_per_worker
        if workers * batch > len(self.train):
            raise BadInput(
                f"a minibatch of {workers} workers of {batch} images is more than the "
                f"{len(self.train)} training images: lower --workers or --batch-per-worker"
            )
        order: Order = self.settings.order
        if self.settings.shuffle == "window":
            order = window_order(self.train, workers, batch, self.settings.shuffle_window)
        object.__setattr__(self, "order", order)

    def data_facts(self) -> dict[str, Any]:
        """Return what must be the same wherever a run resumes: its images and their order."""
        windows = self.order if isinstance(self.order, WindowOrder) else None
        return {
            "num_classes": len(self.train.classes),
            "classes": list(self.train.classes),
            "train_images": len(self.train),
            "train_digest": self.train.digest(),
            "order": f"window {VERSION}" if windows else VERSIONS[self.settings.order],
            "shards": windows.digest() if windows else "",
        }

    def training_ids(self, step: int, fused: range) -> tuple[np.ndarray, np.ndarray]:
        """Return epochs and image ids of a pass of the workers ``fused``; see ``pass_images``."""
        return pass_images(
            self.settings.seed,
            step,
            fused,
            workers=self.settings.workers,
            batch=self.settings.batch_per_worker,
            num_images=len(self.train),
            order=self.order,
        )

    def training_batch(self, step: int, fused: range) -> TrainingBatch:
        """Return the images of a pass with their crops; any step, in any order."""
        settings = self.settings
        epochs, planned = self.training_ids(step, fused)
        while True:
            ids = self.bad_train.substitutes(planned)
            try:
                heights, widths = self.train.sizes(ids)
                break
            except BadImage as error:
                self.bad_train.add(error)
        stream = Stream(settings.seed, epochs, ids)
        side, erased = self.training_side(step), settings.erase
        return TrainingBatch(
            ids=ids,
            labels=self.train.labels_of(ids),
            windows=training_windows(
                stream, heights, widths, settings.min_crop_area, settings.max_crop_ratio
            ),
            flips=flips(stream) if settings.flip else np.zeros(len(ids), np.int32),
            side=side,
            operations=trivial_operations(stream) if settings.augment == "trivial" else None,
            erased=erased_windows(stream, erased, side) if erased else None,
        )

    def mixing(self, step: int, fused: range) -> Mixing:
        """Return how the workers of a pass mix their images."""
        settings = self.settings
        side = self.training_side(step)
        return mixing(
            settings.seed, step, fused, side, mixup=settings.mixup, cutmix=settings.cutmix
        )

    def training_side(self, step: int) -> int:
        """Return the side of the crops of ``step``, pixels."""
        return training_side(self.settings, step, len(self.train))

    @property
    def validation_side(self) -> int:
        """The side of the validation images, pixels."""
        return validation_side(self.settings)

    def training_places(self, first_step: int, last_step: int) -> Iterator[tuple[int, range]]:
        """Yield (step, workers) of each pass from ``first_step`` up to, not with, ``last_step``."""
        return ((step, fused) for step in range(first_step, last_step) for fused in self.passes)

    def found_bad(self) -> tuple[dict[int, str], dict[int, str]]:
        """Return what this process found bad so far in training and validation, by id."""
        return dict(self.bad_train.reasons), dict(self.bad_val.reasons)

    def bad_images(self, found: Sequence[tuple[Mapping, Mapping]] | None = None) -> BadList:
        """Return the bad images of all that was ``found``.

        That is one ``found_bad()`` of each process; None: this one's alone. Raises BadInput where
        they are too many for the images to be at fault.
        """
        train, val = zip(*(found or [self.found_bad()]), strict=True)
        return self.bad_train.everywhere(train) + self.bad_val.everywhere(val)

    @property
    def training_size(self) -> int:
        """The most images of a training batch."""
        return max(map(len, self.passes)) * self.settings.batch_per_worker

    @property
    def validation_rounds(self) -> int:
        """The most validation batches that any process has."""
        most = -(-len(self.val) // self.size)
        return -(-most // self.settings.val_batch)

    @property
    def validated_classes(self) -> np.ndarray | None:
        """Where validation's classes are among training's, int64; None: all, in the same order.

        A model of ImageNet-5k is validated by the softmax of the 1,000 classes of ImageNet alone
        (section 5.3).
        """
        if self.val.classes == self.train.classes:
            return None
        places = {name: place for place, name in enumerate(self.train.classes)}
        return np.array([places[name] for name in self.val.classes])

    def validation_ids(self) -> list[np.ndarray]:
        """Return this process's part of the validation set: every ``size``-th image, in batches."""
        mine = np.arange(self.rank, len(self.val), self.size)
        return [
            mine[i : i + self.settings.val_batch]
            for i in range(0, len(mine), self.settings.val_batch)
        ]

    def validation_batch(self, ids: np.ndarray) -> ValidationBatch:
        """Return these validation images, if they are not bad, with their sizes and crops."""
        while True:
            ids = self.bad_val.without(ids)
            try:
                heights, widths = self.val.sizes(ids)
                break
            except BadImage as error:
                self.bad_val.add(error)
        return ValidationBatch(
            ids=ids,
            labels=self.val.labels_of(ids),
            placement=central_placement(
                heights, widths, self.settings.val_resize, self.validation_side
            ),
            side=self.validation_side,
        )
