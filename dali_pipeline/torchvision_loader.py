"""The reference loader: PIL decodes, torchvision crops and resizes, in DataLoader's processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as transforms

from dali_pipeline.index import bad_image
from dali_pipeline.interface import Batch
from dali_pipeline.plan import Plan, TrainingBatch, ValidationBatch
from dali_pipeline.statistics import MEAN, STD
from hvd_utils.failure import BadInput


class TorchvisionLoader:
    """Decodes in ``processes`` processes beside this one, by the same plan as the DALI loader."""

    def __init__(self, plan: Plan, device: torch.device, processes: int) -> None:
        self._plan = plan
        self._device = device
        self._processes = processes

    def training(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """Yield training batches; see ``Loader``."""
        places = list(self._plan.training_places(first_step, last_step))
        return self._batches(places, _decode_training)

    def validation(self) -> Iterator[Batch]:
        """Yield validation batches; see ``Loader``."""
        return self._batches(self._plan.validation_ids(), _decode_validation)

    def _batches(self, keys: Sequence, decode: Callable) -> Iterator[Batch]:
        if not keys:
            return
        processes = multiprocessing.get_context("forkserver")  # forking an MPI process is not safe
        processes.set_forkserver_preload([__name__])  # so that imports are made once
        batches = DataLoader(
            _PlannedBatches(self._plan, keys, decode),
            batch_size=None,  # an item is a batch already
            num_workers=self._processes,
            multiprocessing_context=processes,
            pin_memory=self._device.type == "cuda",
        )
        for item in batches:
            if isinstance(item, str):
                raise BadInput(item)
            images, labels = item
            yield (
                images.to(self._device, non_blocking=True),
                labels.to(self._device, non_blocking=True),
            )


class _PlannedBatches(Dataset):
    """Item ``i`` is the decoded batch of the plan's ``keys[i]``, or the text of its failure."""

    def __init__(self, plan: Plan, keys: Sequence, decode: Callable) -> None:
        self._plan = plan
        self._keys = keys
        self._decode = decode

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, item: int) -> Any:
        try:
            return self._decode(self._plan, self._keys[item])
        except BadInput as error:  # an exception would arrive wrapped in a traceback's text
            return str(error)


def _decode_training(plan: Plan, place: tuple[int, range]) -> Batch:
    batch: TrainingBatch = plan.training_batch(*place)
    size = [plan.settings.resolution] * 2
    images = []
    for path, *window, mirrored in zip(batch.paths, *batch.windows, batch.flips, strict=True):
        image = transforms.resized_crop(_read(path), *map(int, window), size, antialias=True)
        images.append(transforms.horizontal_flip(image) if mirrored else image)
    return _normalise(images), torch.from_numpy(batch.labels)


def _decode_validation(plan: Plan, ids: Any) -> Batch:
    batch: ValidationBatch = plan.validation_batch(ids)
    side = plan.settings.resolution
    images = []
    for path, size, (top, left) in zip(batch.paths, *batch.placement, strict=True):
        image = transforms.resize(_read(path), size.tolist(), antialias=True)
        images.append(transforms.crop(image, int(top), int(left), side, side))
    return _normalise(images), torch.from_numpy(batch.labels)


def _read(path: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise bad_image(path, error) from error


def _normalise(images: list[Image.Image]) -> torch.Tensor:
    pixels = torch.stack([transforms.pil_to_tensor(image) for image in images])
    return transforms.normalize(pixels.float(), [255 * m for m in MEAN], [255 * s for s in STD])
