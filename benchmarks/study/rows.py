"""The settings that are compared: the paper's tables and Figure 1, at a 32nd of its minibatches.

The baseline is one worker of 8 images, where the paper's is 8 of 32; large is 32 times that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hvd_utils.config.command_line import read_recipe
from hvd_utils.config.recipe import Recipe
from hvd_utils.paper.results import BY_MINIBATCH, CONTROLS, Reference

BASELINE_MINIBATCH = 256  # the paper's, images; ours is that of one worker
LARGE = 32  # workers, as the paper's 8,192 images are 32 times its 256
RATE, PAPERS_RATE = read_recipe("study")["reference_rate"], Recipe().reference_rate


@dataclass(frozen=True)
class Row:
    """One setting: its name on the command line, its workers k and what differs from the recipe."""

    name: str
    title: str
    workers: int
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def flags(self) -> list[str]:
        """The job's arguments for this setting."""
        flags = ["--recipe", "study", "--workers", str(self.workers)]
        for name, value in self.settings:
            flag = "--" + name.replace("_", "-")
            if isinstance(value, bool):
                flags.append(flag if value else flag.replace("--", "--no-", 1))
            else:
                flags += [flag, str(value)]
        return flags

    @property
    def paper(self) -> Reference | None:
        """The paper's figure for the same setting at its size, if it has one."""
        minibatch = self.workers * BASELINE_MINIBATCH
        if not self.settings:
            return BY_MINIBATCH.get(minibatch)
        departs = dict(self.settings)
        if "reference_rate" in departs:  # half of ours stands for half of the paper's
            departs["reference_rate"] = round(departs["reference_rate"] * PAPERS_RATE / RATE, 9)
        found = (
            value for size, control, value in CONTROLS if (size, control) == (minibatch, departs)
        )
        return next(found, None)


def _large(name: str, title: str, **settings: Any) -> Row:
    return Row(name, title, LARGE, tuple(settings.items()))


TABLE1 = (
    Row("baseline", "baseline", 1),
    _large("no-warmup", "no warmup", warmup="none"),
    _large("constant-warmup", "constant warmup", warmup="constant"),
    _large("gradual-warmup", "gradual warmup"),
)
TABLE2 = (
    _large("unscaled", "rate not scaled", scaling="none"),
    _large("sqrt", "rate scaled by the square root", scaling="sqrt"),
    _large("half-rate", f"reference rate {RATE / 2:g}", reference_rate=RATE / 2),
    _large("double-rate", f"reference rate {2 * RATE:g}", reference_rate=2 * RATE),
    Row("baseline-gamma-1", "baseline, γ = 1", 1, (("zero_gamma", False),)),
    _large("gamma-1", "γ = 1", zero_gamma=False),
)
FIGURE1 = tuple(
    Row(f"workers-{workers}", f"{workers} workers", workers) for workers in (4, 16, 64, 128)
)
# As its authors train (You et al. 2017): polynomial decay after a longer warmup, no Nesterov.
SCHEDULE = {"decay": "polynomial", "warmup_epochs": 3}
BY_LARS = {"optimizer": "lars", "reference_rate": 0.5, "nesterov": False, **SCHEDULE}
LARS = (
    *(
        Row(f"lars-{workers}", f"{workers} workers, LARS", workers, tuple(BY_LARS.items()))
        for workers in (64, 128)
    ),
    # What of it is the schedule's, not the optimizer's.
    Row("workers-64-polynomial", "64 workers, SGD, LARS's schedule", 64, tuple(SCHEDULE.items())),
)
# The shuffle of runs before the computed one, as a control.
ORDER = (Row("stored-order", "baseline, stored order", 1, (("order", "stored"),)),)
ROWS = (*TABLE1, *TABLE2, *FIGURE1, *LARS, *ORDER)
BY_NAME = {row.name: row for row in ROWS}
# The largest effects, which few seeds show.
QUICK = ("baseline", "gradual-warmup", "unscaled", "workers-64")

# Error by workers: Figure 1, and the same with LARS.
BY_WORKERS = {row.workers: row.name for row in (TABLE1[0], *FIGURE1[:2], TABLE1[-1], *FIGURE1[2:])}
LARS_BY_WORKERS = {row.workers: row.name for row in LARS[:2]}
