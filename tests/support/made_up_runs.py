"""Runs' folders as training leaves them, made up: of any length, without training."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hvd_utils.config.recipe import Recipe
from hvd_utils.config.settings import Settings

IMAGENET = 1_281_167


def write_run(
    folder: Path,
    *,
    steps_per_epoch: int = 10,
    done: int | None = None,
    val_images: int = 50_000,
    final: float = 23.7,
    restarts: tuple[int, ...] = (),
    end: bool = True,
    name: str = "paper",
    slow_rank: int | None = None,
    log_every: int = 1,
    **settings: Any,
) -> Path:
    """Write settings and ``done`` epochs (all) of a run that goes like ImageNet; return it.

    ``restarts`` are steps at which it was started again. ``slow_rank`` is slow for its second
    third.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = {"recipe": name, "workers": 256, "data": "/data/imagenet", **settings}
    chosen = Settings.model_validate(values)
    (folder / "settings.yaml").write_text(yaml.safe_dump(chosen.model_dump(mode="json")))
    recipe = Recipe.model_validate({k: v for k, v in values.items() if k in Recipe.model_fields})
    lines = list(
        _events(chosen, recipe, steps_per_epoch, done, val_images, final, restarts, slow_rank,
                log_every)
    )  # fmt: skip
    if end:
        last = lines[-1]
        errors = [line["val_top1_error"] for line in lines if line["event"] == "epoch"]
        figure = float(np.median(errors[-5:])) if errors else None
        lines.append(last | {"event": "end", "median_top1_error": figure})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def _events(chosen, recipe, steps_per_epoch, done, val_images, final, restarts, slow, log_every):
    random = np.random.default_rng(chosen.seed)
    minibatch = chosen.workers * chosen.batch_per_worker
    epochs = recipe.epochs if done is None else done
    total = recipe.epochs * steps_per_epoch
    now = time.time() - epochs * steps_per_epoch * 0.26 - 5.0 * (1 + len(restarts))
    begin = {
        "event": "start", "total_steps": total, "epochs": recipe.epochs, "workers": chosen.workers,
        "minibatch": minibatch, "processes": 256, "hosts": {f"node{n:02}": 8 for n in range(32)},
        "devices": ["A GPU"], "command": ["train_imagenet.py", "--output", "<run>"],
        "python": "3.11", "platform": "Linux", "packages": {"torch": "2.9"},
        "git": {"commit": "0123456789abcdef", "changed": []},
    }  # fmt: skip
    for step in range(epochs * steps_per_epoch + 1):
        if step == 0 or step in restarts:
            now += 5.0
            yield begin | {"step": step, "time": now}
        if step == 0:
            continue
        epoch, now = (step - 1) // steps_per_epoch, now + 0.26
        place = step / steps_per_epoch * 90 / recipe.epochs
        decays = sum(epoch >= at for at in recipe.decay_epochs)
        error = final + (80 - final) * np.exp(-place / 4) + (12, 4, 0.7, 0)[min(decays, 3)]
        if step % log_every == 0 or step % steps_per_epoch == 0:
            compute = 0.2 + 0.01 * random.random()
            event = {
                "event": "step", "time": now, "step": step, "epoch": epoch,
                "lr": 3.2 * 0.1**decays, "loss": error / 15 + 0.1 * random.random(),
                "train_top1_error": min(100, error + 2 + random.normal()),
                "images_per_second": minibatch / (0.256 + 0.01 * random.random()),
                "data_seconds": [0.001, 0.002, 0.004],
                "compute_seconds": [compute - 0.01, compute, compute + 0.02],
                "allreduce_seconds": [0.02, 0.03, 0.05],
                "step_split": {"data": 0.01, "compute": 0.85, "allreduce": 0.14},
                "bound_by": "compute",
            }  # fmt: skip
            if slow is not None and 1 / 3 < step / total < 2 / 3:
                event |= {
                    "slow_rank": slow, "slow_host": "node07", "slow_at": "data",
                    "slow_ratio": 1.6, "slow_since": total // 3,
                }  # fmt: skip
            yield event
        if step % steps_per_epoch == 0:
            yield {
                "event": "epoch", "time": now, "epoch": epoch, "step": step,
                "train_loss": error / 15, "val_top1_error": error + 0.1 * random.normal(),
                "val_top5_error": error / 4, "val_images": val_images, "lr": 3.2,
                "images_per_second": 32000.0,
            }  # fmt: skip
