"""Horovod's autotuner: read its log, and keep its result as a recipe."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import launched_rank
from hvd_utils.config.settings import CommunicationSettings


@dataclass(frozen=True)
class Sample:
    """One row of the log: what was tried, and the bytes summed in a microsecond."""

    fusion_mb: float
    cycle_ms: float
    allreduce: str  # flat, hierarchical or torus
    score: float


def read_log(path: Path) -> list[Sample]:
    """Return the samples of HOROVOD_AUTOTUNE_LOG; a row that is still being written is skipped."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except OSError:
        return []
    return [_sample(row) for row in rows if all(row.values())]


def _sample(row: dict[str, str]) -> Sample:
    allreduce = "flat"
    for name in ("torus", "hierarchical"):
        if row[f"{name}_allreduce"] == "1":
            allreduce = name
    return Sample(
        fusion_mb=float(row["tensor_fusion_threshold"]),
        cycle_ms=float(row["cycle_time_ms"]),
        allreduce=allreduce,
        score=float(row["score"]),
    )


def write_recipe(path: Path, samples: list[Sample]) -> Sample:
    """Write the best of the samples as settings, and return it."""
    best = max(samples, key=lambda sample: sample.score)
    path.write_text(
        f"# Tuned by Horovod: the best of {len(samples)} samples, {best.score:.0f} MB/s summed.\n"
        "# --autotune FILE takes it on top of a recipe.\n"
        "bucket_mb: 0\n"
        f"fusion_mb: {best.fusion_mb:g}\n"
        f"cycle_ms: {best.cycle_ms:g}\n"
        f"allreduce: {best.allreduce}\n"
    )
    return best


def log_of(recipe: Path) -> Path:
    """Return where the log of a recipe yet to be found lies."""
    return recipe.with_suffix(".csv")


@contextmanager
def autotuning(settings: CommunicationSettings) -> Iterator[None]:
    """Keep what is tuned while the block runs, also where it is broken off; rank 0 writes.

    Raises BadInput where the recipe could not be written.
    """
    recipe = settings.autotune
    if recipe is None or recipe.exists():
        yield
        return
    if not recipe.parent.is_dir():
        raise BadInput(f"--autotune {recipe}: there is no folder {recipe.parent}: make it first")
    try:
        yield
    finally:
        samples = read_log(log_of(recipe)) if launched_rank() == 0 else []
        if samples:
            best = write_recipe(recipe, samples)
            print(
                f"autotune: best of {len(samples)} samples, --fusion-mb {best.fusion_mb:g} "
                f"--cycle-ms {best.cycle_ms:g}: {recipe}",
                flush=True,
            )
        elif launched_rank() == 0:
            print("autotune: the run was too short for a sample", flush=True)
