"""Evaluate a checkpoint, or weights of others, without training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dali_pipeline.loading.interface import Loader
from dali_pipeline.sampling.plan import Plan
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import some
from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend.flags import SharedFlags
from hvd_utils.horovod_backend.world import World
from hvd_utils.inspect.compare import newest_file
from hvd_utils.run import checkpoint
from hvd_utils.training.loops import validate
from hvd_utils.weights.hub import HUBS
from hvd_utils.weights.initial import match
from hvd_utils.weights.sources import digest, read_weights

FLAG = "--eval-only"
OTHERS = (".pth", ".safetensors")  # files of weights alone; a checkpoint ends in .pt
SHOWN = 100  # bad images by name


def evaluate_only(
    settings: Settings, world: World, model: nn.Module, loader: Loader, plan: Plan
) -> None:
    """Show the errors of what ``--eval-only`` names: a run, a checkpoint or published weights.

    Of averaged weights, if there are any. Raises BadInput where it is damaged, of another model,
    or has weights that are not finite.
    """
    found = None
    if world.is_root:
        found = read_evaluated(settings, model, len(plan.train.classes))
    path, what, weights = world.broadcast(found)
    with checkpoint.explained(path):
        model.load_state_dict(weights)
    checkpoint.require_finite(model.state_dict(), path)
    errors = validate(
        model,
        loader.validation(),
        plan.validation_rounds,
        precision=settings.precision,
        world=world,
        flags=SharedFlags(world.size),
        classes=plan.validated_classes,
    )
    bad = plan.bad_images(world.gather(plan.found_bad()))
    if world.is_root:
        more = f" and {bad.total - SHOWN} more" if bad.total > SHOWN else ""
        named = f"{', '.join([*bad.named][:SHOWN])}{more}"
        left_out = f"; left out as bad: {named}" if bad.total else ""
        print(
            f"{path} ({what}): top-1 error {errors.top1:.2f} %, "
            f"top-5 error {errors.top5:.2f} %, {errors.images} images{left_out}",
            flush=True,
        )


def read_evaluated(
    settings: Settings, model: nn.Module, classes: int
) -> tuple[Path, str, Mapping[str, torch.Tensor]]:
    """Return what ``--eval-only`` names, which weights these are in words, and the weights.

    Of a run's folder it is the newest checkpoint. Raises BadInput where it does not fit.
    """
    path = settings.eval_only
    published = str(path).startswith(HUBS) and not os.path.exists(path)
    if published or path.suffix in OTHERS:
        return path, *_of_others(path, settings.model, model)
    if os.path.isdir(path):
        path = newest_file(path)
    state = checkpoint.load_checkpoint(path)
    checkpoint.check_model(state, path, settings.model, classes)
    for line in _otherwise_validated(state, path, settings):
        print(line, flush=True)
    averaged = state.get("averaged")
    what = f"step {state['step']}{', averaged weights' if averaged else ''}"
    return path, what, averaged or state["model"]


def _of_others(path: Path, name: str, model: nn.Module) -> tuple[str, Mapping[str, torch.Tensor]]:
    """Return the checksum of the weights that others made, and the weights of the whole model."""
    weights = read_weights(str(path), FLAG)
    found = match(model, weights, str(path), name, FLAG)
    if found.new:
        raise BadInput(
            f"{FLAG} {path} does not fit the last layer: {some(found.new)}: set --data to images "
            "of the classes that it was trained on"
        )
    own = {name: value.cpu() for name, value in model.state_dict().items()}
    return digest(weights), own | found.loaded


def _otherwise_validated(state: Mapping[str, Any], path: Path, settings: Settings) -> list[str]:
    """Return a warning if the run itself validates its images in another size."""
    own, now = {**checkpoint.DEFAULTS, **state["experiment"]}, settings.experiment()
    for values in (own, now):
        values["val_resolution"] = values["val_resolution"] or values["resolution"]
    differ = [
        f"--{name.replace('_', '-')} {now[name]} instead of {own[name]}"
        for name in ("val_resolution", "val_resize", "antialias")
        if now[name] != own[name]
    ]
    if not differ:
        return []
    return [
        f"warning: {path} is evaluated otherwise than in its run: {', '.join(differ)}; for the "
        "run's own figure give its --recipe and settings"
    ]
