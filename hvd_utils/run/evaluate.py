"""Evaluate a checkpoint without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from dali_pipeline.loading.interface import Loader
from dali_pipeline.sampling.plan import Plan
from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend.flags import SharedFlags
from hvd_utils.horovod_backend.world import World
from hvd_utils.run import checkpoint
from hvd_utils.training.loops import validate

SHOWN = 100  # bad images by name


def evaluate_only(
    settings: Settings, world: World, model: nn.Module, loader: Loader, plan: Plan
) -> None:
    """Show the errors of the checkpoint ``--eval-only`` names: of its averaged weights, if any.

    Raises BadInput where it is damaged, of another model, or has weights that are not finite.
    """
    path = settings.eval_only
    state = None
    if world.is_root:
        state = checkpoint.load_checkpoint(path)
        checkpoint.check_model(state, path, settings.model, len(plan.train.classes))
        for line in _otherwise_validated(state, path, settings):
            print(line, flush=True)
    state = world.broadcast(state)
    averaged = state.get("averaged")
    with checkpoint.explained(path):
        model.load_state_dict(averaged or state["model"])
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
        what = f"step {state['step']}{', averaged weights' if averaged else ''}"
        more = f" and {bad.total - SHOWN} more" if bad.total > SHOWN else ""
        named = f"{', '.join([*bad.named][:SHOWN])}{more}"
        left_out = f"; left out as bad: {named}" if bad.total else ""
        print(
            f"{path} ({what}): top-1 error {errors.top1:.2f} %, "
            f"top-5 error {errors.top5:.2f} %, {errors.images} images{left_out}",
            flush=True,
        )


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
