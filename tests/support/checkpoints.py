"""Runs with one checkpoint, made without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hvd_utils.config.recipe import Recipe
from hvd_utils.nn.batch_norm import batch_norms
from hvd_utils.nn.models import build_model
from hvd_utils.run.checkpoint import save_checkpoint
from hvd_utils.run.progress import Progress


def some_model(name: str, classes: int, seed: int = 1) -> nn.Module:
    """Return a network whose batch norms are not as they start, so that a lost one is noticed."""
    model = build_model(name, classes, zero_gamma=False, seed=seed)
    for norm in batch_norms(model):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.running_mean, std=0.1)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return model.eval()


def write_checkpoint(
    folder: Path,
    network: nn.Module,
    classes: Sequence[str],
    *,
    averaged: nn.Module | None = None,
    errors: Sequence[float] = (30.0, 25.0),
    **recipe: Any,
) -> Path:
    """Write a run's checkpoint after 7 steps of ``network``; return its file."""
    progress = Progress(step=7, top1_errors=list(errors))
    state = {
        "step": 7,
        "progress": vars(progress),
        "experiment": Recipe(**recipe).model_dump(mode="json"),
        "num_classes": len(classes),
        "classes": list(classes),
        "model": network.to(memory_format=torch.channels_last).state_dict(),
        "averaged": averaged.state_dict() if averaged else {},
    }
    return save_checkpoint(folder, state, keep=3)
