"""The errors of a checkpoint, without training."""

from __future__ import annotations

from torch import nn

from dali_pipeline.interface import Loader
from hvd_utils import checkpoint
from hvd_utils.agreement import Agreement
from hvd_utils.settings import Settings
from hvd_utils.training import validate
from hvd_utils.world import World


def evaluate_only(
    settings: Settings,
    world: World,
    model: nn.Module,
    num_classes: int,
    loader: Loader,
    rounds: int,
) -> None:
    """Show the errors of the checkpoint ``--eval-only`` names: of its averaged weights, if any."""
    path = settings.eval_only
    state = None
    if world.is_root:
        state = checkpoint.load_checkpoint(path)
        checkpoint.check_model(state, path, settings.model, num_classes)
    state = world.broadcast(state)
    averaged = state.get("averaged")
    model.load_state_dict(averaged or state["model"])
    errors = validate(
        model,
        loader.validation(),
        rounds,
        precision=settings.precision,
        world=world,
        agreement=Agreement(world.size),
    )
    if world.is_root:
        what = f"step {state['step']}{', averaged weights' if averaged else ''}"
        print(
            f"{path} ({what}): top-1 error {errors.top1:.2f} %, "
            f"top-5 error {errors.top5:.2f} %, {errors.images} images",
            flush=True,
        )
