"""Horovod's distributed optimizer: allreduce overlaps with backprop (section 4)."""

from __future__ import annotations

import horovod.torch as hvd
import torch
from torch import nn

from hvd_utils.config.recipe import Recipe
from hvd_utils.horovod_backend.compression import ContiguousViews, make_compression
from hvd_utils.horovod_backend.gradient_buckets import buckets, place_contiguously


def distribute(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    recipe: Recipe,
    passes: int,
    bucket_mb: float = 0,
) -> torch.optim.Optimizer:
    """Return ``optimizer`` with the gradients of ``model`` summed over all processes.

    The sum begins in the last of the ``passes`` backward passes of a step. Gradients travel in
    buckets of ``bucket_mb``; with 0, Horovod fuses those that are ready.
    """
    sizes = [(p, p.numel() * p.element_size()) for p in model.parameters() if p.requires_grad]
    groups = buckets(sizes, bucket_mb) if bucket_mb else None
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    in_place = groups and on_cpu and hvd.size() > 1 and recipe.compression == "none"
    if in_place or recipe.compile == "cudagraphs":
        place_contiguously(groups or [[parameter] for parameter, _ in sizes])
    compression = make_compression(recipe.compression, scaled=recipe.precision == "fp16")
    return hvd.DistributedOptimizer(
        optimizer,
        named_parameters=[(n, p) for n, p in model.named_parameters() if p.requires_grad],
        op=hvd.Sum,
        backward_passes_per_step=passes,
        compression=ContiguousViews(compression),
        groups=groups,
    )
