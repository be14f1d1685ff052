"""The peers on the same files, set up as their documentation advises.

Each gives batches of float32 (batch, 3, 224, 224), normalised, on the run's device, from
``bench.threads`` processes or threads. They take the images in our order where they allow an order,
and draw their own windows, of the same distribution.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image, decode_jpeg
from torchvision.transforms import v2 as transforms

from dali_pipeline.benchmarking.bench import Bench, Missing, Stream, in_threads, needed
from dali_pipeline.dataset.index import Index
from dali_pipeline.loading.interface import MEAN, STD
from hvd_utils.config.settings import Settings


def bare_decode(bench: Bench) -> Stream:
    """Return the stream of whole images decoded and dropped, by the fastest library here."""
    name, decode = _fastest_decoder()

    def whole(image: int) -> Any:
        data = bench.plan.train.read(image)
        try:
            return decode(data)
        except (ValueError, OSError, RuntimeError):  # ImageNet has a PNG and a few CMYK images
            return _pil(data)

    images = in_threads(whole, bench.ids(), bench.threads)
    return Stream(f"whole images decoded by {name}, nothing else", images)


def torchvision_pil(bench: Bench) -> Stream:
    """Return the stream of PyTorch's ImageNet example: PIL in a DataLoader."""
    steps = transforms.Compose(
        [
            *_crop_and_flip(bench.plan.settings),
            transforms.PILToTensor(),
            *_normalise(),
        ]
    )
    return Stream("torchvision: PIL, DataLoader", _loader(bench, _pil, steps))


def torchvision_decoder(bench: Bench) -> Stream:
    """Return the stream of torchvision's own decoder and its transforms of tensors.

    Pixels are uint8 until they are normalised.
    """
    steps = transforms.Compose([*_crop_and_flip(bench.plan.settings), *_normalise()])
    return Stream("torchvision: decode_image, v2, DataLoader", _loader(bench, decoded, steps))


def training_transform(settings: Settings) -> Callable[[bytes], torch.Tensor]:
    """Return what makes of an encoded image what ``torchvision_decoder`` makes of it."""
    return transforms.Compose([decoded, *_crop_and_flip(settings), *_normalise()])


def decoded(data: bytes) -> torch.Tensor:
    """Return an image as uint8 (3, height, width), decoded by torchvision."""
    return decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)


def _pil(data: bytes) -> Image.Image:
    with Image.open(BytesIO(data)) as image:
        return image.convert("RGB")


def _crop_and_flip(settings: Settings) -> list:
    crop = transforms.RandomResizedCrop(
        settings.resolution,
        scale=(settings.min_crop_area, 1),
        ratio=(1 / settings.max_crop_ratio, settings.max_crop_ratio),
        antialias=True,
    )
    return [crop, transforms.RandomHorizontalFlip()]


def _normalise() -> list:
    return [transforms.ToDtype(torch.float32, scale=True), transforms.Normalize(MEAN, STD)]


class _Images(Dataset):
    """Item ``i`` is image ``i``, decoded and transformed."""

    def __init__(self, index: Index, decode: Callable, transform: Callable) -> None:
        self._index, self._decode, self._transform = index, decode, transform

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, image: int) -> torch.Tensor:
        return self._transform(self._decode(self._index.read(image)))


def _loader(bench: Bench, decode: Callable, transform: Callable) -> Iterator[torch.Tensor]:
    dataset = _Images(bench.plan.train, decode, transform)
    batches: Any = bench.ids()
    return on_device(DataLoader(dataset, batch_sampler=batches, **workers(bench)), bench)


def workers(bench: Bench) -> dict:
    """Return the DataLoader's options for as many processes as there are threads."""
    context = multiprocessing.get_context("forkserver")  # forking an MPI process is not safe
    context.set_forkserver_preload([__name__])  # so that imports are made once
    return {
        "num_workers": bench.threads,
        "multiprocessing_context": context,
        "persistent_workers": True,
        "pin_memory": bench.device.type == "cuda",
    }


def on_device(batches: Iterable[torch.Tensor], bench: Bench) -> Iterator[torch.Tensor]:
    """Yield the batches on the run's device."""
    return (batch.to(bench.device, non_blocking=True) for batch in batches)


def _fastest_decoder() -> tuple[str, Callable]:
    """Return name and function of the fastest JPEG decoder that is installed, fastest first."""
    remedy = "pip install simplejpeg"
    try:
        return "simplejpeg (libjpeg-turbo)", needed("simplejpeg", remedy).decode_jpeg
    except Missing:
        pass
    try:
        return "PyTurboJPEG (libjpeg-turbo)", needed("turbojpeg", remedy).TurboJPEG().decode
    except (Missing, RuntimeError):  # RuntimeError: it finds no library
        return "torchvision.io.decode_jpeg", _torchvision_jpeg


def _torchvision_jpeg(data: bytes) -> torch.Tensor:
    return decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
