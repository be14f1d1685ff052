"""Small plans, and what a loader makes of them."""

from __future__ import annotations

import torch

from dali_pipeline.dataset.scan import scan_splits
from dali_pipeline.loading.interface import STD
from dali_pipeline.loading.loader import make_loader
from dali_pipeline.sampling.plan import Plan
from hvd_utils.config.settings import Settings
from hvd_utils.paper.logical_workers import passes

CPU = torch.device("cpu")
SETTINGS = Settings(
    recipe="demo", workers=2, batch_per_worker=4, resolution=32, val_resize=36, val_batch=3
)
# Steps of 8 images of 30: the second epoch begins at step 4, the third at step 8.
GROWING = {
    "resolution": 96, "resolution_from": 32, "resolution_ramp": (0, 2),
    "val_resolution": 40, "val_resize": 44,
}  # fmt: skip
STEPS = range(3, 9)


def plan_for(data, *, mine=range(2), fuse=1, rank=0, size=1, **changes):
    settings = SETTINGS.model_copy(update=changes)
    return Plan(*scan_splits(data), settings, passes(mine, fuse), rank, size)


def load(kind, plan, first=0, last=3):
    loader = make_loader(kind, plan, device=CPU, threads=1)
    return list(loader.training(first, last)), list(loader.validation())


def images_by_worker(plan, device=CPU, threads=1):
    """Return the first step's images by DALI on the CPU, (workers, n, 3, side, side).

    In a pass they alternate: see ``pass_images``.
    """
    loader, found = make_loader("dali", plan, device=device, threads=threads), []
    for fused, (images, _) in zip(plan.passes, loader.training(0, 1), strict=True):
        found.append(images.cpu().unflatten(0, (-1, len(fused))).transpose(0, 1))
    return torch.cat(found)


def assert_alike(ours, theirs, mean, most):
    """Compare training and validation batches; differences are in units of 0 to 255."""
    deviation = torch.tensor(STD).view(3, 1, 1) * 255
    for part in (0, 1):
        for (images, labels), (expected, expected_labels) in zip(
            ours[part], theirs[part], strict=True
        ):
            assert torch.equal(labels, expected_labels)
            assert images.is_contiguous(memory_format=torch.channels_last)
            difference = ((images - expected) * deviation).abs()
            assert difference.mean() < mean
            assert difference.max() < most
