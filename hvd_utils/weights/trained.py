"""A trained network, read from a run's folder or a checkpoint: weights and all they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dali_pipeline.loading.interface import MEAN, STD
from dali_pipeline.sampling.image_size import validation_side
from hvd_utils.cli.checkout import git
from hvd_utils.config.recipe import Recipe
from hvd_utils.inspect.compare import newest_file
from hvd_utils.nn.models import recipe_model
from hvd_utils.run.checkpoint import explained, load_checkpoint, require, require_finite
from hvd_utils.run.progress import Progress


@dataclass(frozen=True)
class Trained:
    """What a checkpoint holds of a network: its averaged ``weights`` where it keeps an average."""

    path: Path
    recipe: Recipe
    classes: tuple[str, ...]  # by label; numbers where the checkpoint does not name them
    weights: Mapping[str, torch.Tensor]  # float32, contiguous
    averaged: bool
    progress: Progress

    def model(self) -> nn.Module:
        """Return the network, ready to classify."""
        model = recipe_model(self.recipe, len(self.classes))
        with explained(self.path):
            model.load_state_dict(self.weights)
        return model.eval()

    def facts(self) -> dict[str, Any]:
        """Return what another program needs to know of the weights, as plain values.

        Sides in pixels, errors in percent; ``mean`` and ``std`` of pixels in 0 to 1.
        """
        errors = self.progress.top1_errors
        return {
            "model": self.recipe.model,
            "classes": list(self.classes),
            "mean": list(MEAN),
            "std": list(STD),
            "resize_shorter_side": self.recipe.val_resize,
            "crop_side": validation_side(self.recipe),
            "averaged_weights": self.averaged,
            "step": self.progress.step,
            "epochs": len(errors),
            "top1_error": errors[-1] if errors else None,  # after the last of these epochs
            "final_top1_error": self.progress.final_error(),  # median of the last 5
            "recipe": self.recipe.model_dump(mode="json"),
            "trained_by": _environment(self.path),
            "exported_by": {"commit": git("rev-parse", "HEAD"), "torch": torch.__version__},
        }


def read_trained(source: Path) -> Trained:
    """Return the network of a checkpoint, or of the newest one of a run's folder.

    Raises BadInput where it is damaged, no checkpoint, or has weights that are not finite.
    """
    path = newest_file(source)
    state = load_checkpoint(path)
    require(state, path, "model", "experiment", "num_classes", "progress")
    with explained(path):
        averaged = dict(state.get("averaged") or {})
        weights = {name: _plain(value) for name, value in (averaged or state["model"]).items()}
        names = state.get("classes") or map(str, range(state["num_classes"]))
        trained = Trained(
            path,
            Recipe.model_validate(state["experiment"]),
            tuple(names),
            weights,
            bool(averaged),
            Progress(**state["progress"]),
        )
    require_finite(weights, path)
    return trained


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.float() if tensor.is_floating_point() else tensor).contiguous()


def _environment(path: Path) -> dict[str, Any] | None:
    """Return the versions and the commit that the run's folder tells; None where it has none."""
    try:
        text = (path.parent.parent / "environment.json").read_text(encoding="utf-8")
        facts = json.loads(text)
        return {name: facts.get(name) for name in ("git", "packages", "python")}
    except (OSError, ValueError, AttributeError):
        return None
