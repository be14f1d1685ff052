"""The paper's results, read from ``results.yaml``, and which of them a run's settings belong to.

Goyal et al. 2017, arXiv 1706.02677v2. Errors are top-1 on ImageNet's validation set, percent.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hvd_utils.config.recipe import Recipe

VAL_IMAGES = 50_000
SEEDS = 5  # runs of each setting
NOT_COMPARED = ("seed", "order", "workers", "precision")  # workers are compared as kn
PRINTED = yaml.safe_load(Path(__file__).with_name("results.yaml").read_text(encoding="utf-8"))


class Reference(NamedTuple):
    """A figure of the paper: mean and standard deviation, and where it stands."""

    error: float
    std: float
    source: str
    page: int

    def __str__(self) -> str:
        return f"{self.error:.2f} ± {self.std:.2f}"


class Row(NamedTuple):
    """A setting of which the paper prints an error. ``settings`` differ from its recipe."""

    recipe: str  # as --recipe takes it
    workers: int
    rate: float  # after warmup
    settings: Mapping[str, Any]
    reference: Reference

    @property
    def minibatch(self) -> int:
        """Images in a step, kn."""
        return self.workers * Recipe().batch_per_worker

    @property
    def arguments(self) -> str:
        """What the job's command line has for this setting; another for each."""
        workers = f" --workers {self.workers}" if self.recipe == "paper" else ""
        return f"--recipe {self.recipe}{workers}"


def _row(printed: Mapping[str, Any]) -> Row:
    reference = Reference(*(printed[name] for name in Reference._fields))
    settings = printed.get("settings", {})
    return Row(printed["recipe"], printed["workers"], printed["rate"], settings, reference)


# Every row as it is printed; a setting that stands in several tables is there as often.
ROWS = tuple(_row(printed) for printed in PRINTED["errors"])

# Figure 1: error by minibatch, for n = 32 and all else by the recipe.
BY_MINIBATCH = {
    row.minibatch: row.reference for row in ROWS if row.reference.source == "Figure 3"
} | {row.minibatch: row.reference for row in ROWS[:4] if not row.settings}

# The controls: minibatch, what differs from the recipe, and the error.
CONTROLS = tuple((row.minibatch, row.settings, row.reference) for row in ROWS if row.settings)

# GPUs: seconds of a step of ResNet-50, n = 32 (Figures 7 and 8).
STEP_SECONDS: Mapping[int, float] = {point["gpus"]: point["seconds"] for point in PRINTED["timing"]}


def distinct_rows() -> list[Row]:
    """Return each setting once, from the first place where the paper prints it."""
    found: dict[tuple[int, str], Row] = {}
    for row in ROWS:
        found.setdefault((row.workers, repr(row.settings)), row)
    return list(found.values())


def find_row(
    experiment: Mapping[str, Any], val_images: int | None, minibatch: int | None = None
) -> Row | None:
    """Return the paper's row for an experiment, by its settings; None where it has none.

    It holds for ImageNet alone, which the number of validation images identifies. ``minibatch`` is
    kn where it is known otherwise than as workers times n.
    """
    if val_images != VAL_IMAGES:
        return None
    images = minibatch or (experiment["workers"] or 0) * experiment["batch_per_worker"]
    usual = Recipe().model_dump(mode="json")
    departs = {
        name: value
        for name, value in experiment.items()
        if name not in NOT_COMPARED and value != usual.get(name)
    }
    if images <= usual["reference_minibatch"]:
        departs.pop("warmup", None)  # then there is none in any case
        if images == usual["reference_minibatch"]:
            departs.pop("scaling", None)
    rows = distinct_rows()
    return next((row for row in rows if (row.minibatch, row.settings) == (images, departs)), None)


def find_reference(
    experiment: Mapping[str, Any], val_images: int | None, minibatch: int | None = None
) -> Reference | None:
    """Return the paper's figure for an experiment; see ``find_row``."""
    row = find_row(experiment, val_images, minibatch)
    return row and row.reference
