"""FFCV, which reads smaller images in its own format, and our pipeline on equally small images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from dali_pipeline.benchmarking.bench import Bench, Stream, needed
from dali_pipeline.benchmarking.formats import packed
from dali_pipeline.benchmarking.stages import full
from dali_pipeline.dataset.index import Index
from dali_pipeline.loading.interface import MEAN, STD
from dali_pipeline.preparation.shard import Encoding

# Below ImageNet's usual 500 pixels, so that both sides encode nearly every image anew.
REENCODED = Encoding(max_side=400, quality=90)
REMEDY = "it needs OpenCV's and TurboJPEG's headers, then pip install ffcv numba opencv-python"
STEPS = 10_000  # of one of its epochs, so that the pauses between epochs do not count


def full_reencoded(bench: Bench) -> Stream:
    """Return the stream of our own loader on images encoded anew, packed: FFCV's counterpart."""
    needed("ffcv", REMEDY)
    index = packed(bench, "reencoded", REENCODED, shard_bytes=1_000_000_000)
    _, batches = full(replace(bench, plan=replace(bench.plan, train=index)))
    return Stream(f"our pipeline on {_size(index.file_bytes.mean())}", batches)


def ffcv(bench: Bench) -> Stream:
    """Return the stream of FFCV's loader, from a file with images encoded as ours above.

    Its batches are float32 NCHW in the memory order that it prefers, channels last. Against
    ``full_reencoded``, the difference is the pipeline's, not that of smaller images. It decodes
    with libjpeg-turbo's fast DCT, which is less exact than the one that all others here use.
    """
    needed("ffcv", REMEDY)
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import (
        NormalizeImage,
        RandomHorizontalFlip,
        ToDevice,
        ToTensor,
        ToTorchImage,
    )

    path = bench.scratch / f"side{REENCODED.max_side}-quality{REENCODED.quality}.beton"
    if not path.exists():
        _write_beton(bench, path)
    side = bench.plan.settings.resolution
    normalise = NormalizeImage(255 * np.array(MEAN), 255 * np.array(STD), np.float32)
    if bench.device.type == "cuda":
        output = [ToTensor(), ToDevice(bench.device), ToTorchImage(), normalise]
    else:
        output = [normalise, ToTensor(), ToTorchImage()]
    loader = Loader(
        str(path),
        batch_size=bench.plan.training_size,
        num_workers=bench.threads,
        os_cache=True,
        order=OrderOption.SEQUENTIAL,
        indices=np.concatenate([*islice(bench.ids(), STEPS)]).astype(np.uint64),
        pipelines={
            "image": [
                RandomResizedCropRGBImageDecoder((side, side)),
                RandomHorizontalFlip(),
                *output,
            ]
        },
    )

    def batches() -> Iterator:
        while True:
            yield from loader

    return Stream(f"ffcv on {_size(loader.reader.alloc_table['size'].mean())}", batches())


class _Pixels:
    """Item ``i`` is image ``i`` as uint8 (height, width, 3), for FFCV's writer."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, image: int) -> tuple[np.ndarray]:
        with Image.open(BytesIO(self._index.read(image))) as picture:
            return (np.asarray(picture.convert("RGB")),)


def _write_beton(bench: Bench, path: Path) -> None:
    from ffcv.fields import RGBImageField
    from ffcv.writer import DatasetWriter

    field = RGBImageField(
        write_mode="jpg", max_resolution=REENCODED.max_side, jpeg_quality=REENCODED.quality
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    writer = DatasetWriter(str(temporary), {"image": field}, num_workers=bench.threads)
    writer.from_indexed_dataset(_Pixels(bench.plan.train))
    os.replace(temporary, path)


def _size(mean_bytes: float) -> str:
    return (
        f"JPEGs encoded anew: at most {REENCODED.max_side} pixels, quality {REENCODED.quality}, "
        f"mean {mean_bytes / 1000:.0f} KB"
    )
