"""The reference loader: PIL decodes, torchvision crops and resizes, in DataLoader's processes."""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as transforms

from dali_pipeline.dataset.bad_images import BadImages
from dali_pipeline.dataset.colours import to_rgb
from dali_pipeline.dataset.index import CHANGED, BadImage, Index, bad_image
from dali_pipeline.loading.augment import erase, operate
from dali_pipeline.loading.interface import MEAN, STD, Batch
from dali_pipeline.sampling.crops import Placement
from dali_pipeline.sampling.plan import Plan, TrainingBatch, ValidationBatch
from hvd_utils.cli.errors import BadInput


class TorchvisionLoader:
    """Decodes in ``processes`` processes beside this one, by the same plan as the DALI loader."""

    def __init__(self, plan: Plan, device: torch.device, processes: int) -> None:
        self._plan = plan
        self._device = device
        self._processes = processes

    def training(self, first_step: int, last_step: int) -> Generator[Batch]:
        """Yield training batches; see ``Loader``."""
        places = list(self._plan.training_places(first_step, last_step))
        return self._batches(places, _decode_training, self._plan.bad_train)

    def validation(self) -> Iterator[Batch]:
        """Yield validation batches; see ``Loader``."""
        return self._batches(self._plan.validation_ids(), _decode_validation, self._plan.bad_val)

    def _batches(self, keys: Sequence, decode: Callable, bad: BadImages) -> Generator[Batch]:
        if not keys:
            return
        processes = multiprocessing.get_context("forkserver")  # forking an MPI process is not safe
        processes.set_forkserver_preload([__name__])  # so that imports are made once
        batches = DataLoader(
            _PlannedBatches(self._plan, keys, decode, bad),
            batch_size=None,  # an item is a batch already
            num_workers=self._processes,
            prefetch_factor=self._plan.settings.prefetch,
            multiprocessing_context=processes,
            pin_memory=self._device.type == "cuda",
        )
        for item in batches:
            if isinstance(item, str):
                raise BadInput(item)
            images, labels, reasons = item
            bad.reasons.update(reasons)
            if len(labels):
                yield (
                    images.to(self._device, non_blocking=True),
                    labels.to(self._device, non_blocking=True),
                )


class _PlannedBatches(Dataset):
    """Item ``i`` is the decoded batch of the plan's ``keys[i]``, or the text of its failure."""

    def __init__(self, plan: Plan, keys: Sequence, decode: Callable, bad: BadImages) -> None:
        self._plan = plan
        self._keys = keys
        self._decode = decode
        self._bad = bad

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, item: int) -> Any:
        try:
            while True:
                try:
                    images, labels = self._decode(self._plan, self._keys[item])
                    return images, torch.from_numpy(labels), self._bad.reasons
                except BadImage as error:
                    self._bad.add(error)
        except BadInput as error:  # an exception would arrive wrapped in a traceback's text
            return str(error)


def _decode_training(plan: Plan, place: tuple[int, range]) -> tuple[torch.Tensor, np.ndarray]:
    batch = plan.training_batch(*place)
    plan.train.expect(batch.ids.tolist())
    return training_images(plan, batch), batch.labels


def training_images(plan: Plan, batch: TrainingBatch) -> torch.Tensor:
    """Return the images of a planned batch; raise BadImage where one cannot be decoded."""
    size, antialias = [batch.side] * 2, plan.settings.antialias
    images = []
    for image, *window, mirrored in zip(batch.ids, *batch.windows, batch.flips, strict=True):
        pixels = transforms.crop(_decode(plan.train, image), *map(int, window))
        pixels = _resize(pixels, size, antialias)
        images.append(transforms.horizontal_flip(pixels) if mirrored else pixels)
    if batch.operations is not None:
        operations = zip(images, *batch.operations, strict=True)
        images = [operate(_tensor(pixels), *operation) for pixels, *operation in operations]
    normalised = _normalise(images)
    if batch.erased is not None:
        for place, pixels in enumerate(normalised.permute(0, 2, 3, 1)):
            erase(pixels, batch.erased, place)
    return normalised


def _decode_validation(plan: Plan, ids: Any) -> tuple[torch.Tensor, np.ndarray]:
    batch = plan.validation_batch(ids)
    plan.val.expect(batch.ids.tolist())
    return validation_images(plan, batch), batch.labels


def validation_images(plan: Plan, batch: ValidationBatch) -> torch.Tensor:
    """Return the images of a planned batch; raise BadImage where one cannot be decoded."""
    antialias = plan.settings.antialias
    return central_images(plan.val, batch.ids, batch.placement, batch.side, antialias)


def central_images(
    index: Index, ids: np.ndarray, placement: Placement, side: int, antialias: bool
) -> torch.Tensor:
    """Return images of an index resized and cropped by ``placement``, normalised.

    Raises BadImage where one cannot be decoded.
    """
    images = []
    for image, size, (top, left) in zip(ids, *placement, strict=True):
        pixels = _resize(_decode(index, image), size.tolist(), antialias)
        images.append(transforms.crop(pixels, int(top), int(left), side, side))
    return _normalise(images)


def _decode(index: Index, image: int) -> Image.Image:
    """Return an image in RGB, its EXIF orientation ignored, as torchvision's ImageFolder does."""
    try:
        with Image.open(io.BytesIO(index.read(image))) as pixels:
            size = [int(side[0]) for side in index.sizes(np.array([image]))]
            if [pixels.height, pixels.width] != size:
                raise bad_image(index, int(image), CHANGED)
            return to_rgb(pixels)
    except BadInput:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise bad_image(index, int(image), error) from error


def _resize(pixels: Image.Image, size: list[int], antialias: bool) -> Image.Image | torch.Tensor:
    """Return the image in another size; PIL always filters, so without it tensors are resized."""
    if antialias:
        return transforms.resize(pixels, size)
    return transforms.resize(transforms.pil_to_tensor(pixels), size, antialias=False)


def _tensor(image: Image.Image | torch.Tensor) -> torch.Tensor:
    return image if isinstance(image, torch.Tensor) else transforms.pil_to_tensor(image)


def _normalise(images: list[Image.Image | torch.Tensor]) -> torch.Tensor:
    if not images:
        return torch.empty(0)
    pixels = torch.stack([*map(_tensor, images)]).float()
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    return transforms.normalize(pixels, [255 * m for m in MEAN], [255 * s for s in STD])
