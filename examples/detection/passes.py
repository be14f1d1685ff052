"""The pictures of each pass through the model: those of one logical worker in one step."""

from __future__ import annotations

from collections.abc import Generator

import torch

from dali_pipeline.sampling.crops import Stream, flips
from dali_pipeline.sampling.order import worker_images
from detection.coco_format import Coco, Target
from hvd_utils.config.settings import Settings

Pass = tuple[list[torch.Tensor], list[Target]]


def read_passes(
    data: Coco, settings: Settings, mine: range, steps: range
) -> Generator[Pass, None, None]:
    """Yield pictures and targets of the workers ``mine``, step by step, on the CPU.

    Each epoch is one shuffle of all pictures (Remark 4), of which half are mirrored; neither
    depends on the number of processes.
    """
    for step in steps:
        for worker in mine:
            epochs, ids = worker_images(
                settings.seed,
                step,
                worker,
                workers=settings.workers,
                batch=settings.batch_per_worker,
                num_images=len(data),
            )
            turned = flips(Stream(settings.seed, epochs, ids))
            pairs = [
                mirrored(*data[item]) if turn else data[item]
                for item, turn in zip(ids.tolist(), turned, strict=True)
            ]
            yield [image for image, _ in pairs], [target for _, target in pairs]


def mirrored(image: torch.Tensor, target: Target) -> tuple[torch.Tensor, Target]:
    """Return a picture and its objects, left and right exchanged."""
    boxes = target["boxes"].clone()
    boxes[:, [0, 2]] = image.shape[-1] - boxes[:, [2, 0]]
    return image.flip(-1), {**target, "boxes": boxes, "masks": target["masks"].flip(-1)}


def on_device(one: Pass, device: torch.device, dtype: torch.dtype) -> Pass:
    """Return a pass on the device, its pictures and boxes in the model's precision."""
    images, targets = one
    moved = [{name: value.to(device) for name, value in each.items()} for each in targets]
    return (
        [image.to(device, dtype) for image in images],
        [{**each, "boxes": each["boxes"].to(dtype)} for each in moved],
    )
