"""The paper's Figures 1 to 5, from runs, with its own points beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hvd_utils.cli.errors import BadInput
from hvd_utils.paper.results import BY_MINIBATCH, ROWS, Row, distinct_rows
from hvd_utils.reproduction.collected import Collected
from hvd_utils.reproduction.drawing import BAND, curve, error_bars, new_figure, over_minibatches

COLUMNS = 3
EPOCHS = 90
COLOURS = ("tab:orange", "tab:blue")


def _of(recipe: str) -> Row:
    return next(row for row in ROWS if row.recipe == recipe)


BASELINE, LARGE = _of("tables/1-baseline"), _of("tables/1-gradual-warmup")
MINIBATCHES = sorted(
    (row for row in distinct_rows() if not row.settings), key=lambda row: row.workers
)

# Each is panels of two settings.
CURVES: dict[str, list[tuple[Row, Row]]] = {
    "figure2": [
        (BASELINE, _of(f"tables/1-{kind}-warmup")) for kind in ("no", "constant", "gradual")
    ],
    "figure3": [(BASELINE, row) for row in MINIBATCHES if row != BASELINE],
    "figure4": [(BASELINE, LARGE)],
    "figure5": [(BASELINE, _of("tables/2a-rate-0.2-256"))],
}
WITH_VALIDATION = ("figure4",)


def draw(collected: Collected, folder: Path) -> Iterator[Path]:
    """Write Figures 1 to 5 below ``folder`` and yield their paths; raise BadInput if it cannot be.

    A setting without a run has the paper's final error alone.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield _errors(collected, folder / "figure1.png")
        for name, panels in CURVES.items():
            yield _curves(collected, panels, folder / f"{name}.png", name in WITH_VALIDATION)
    except OSError as error:
        raise BadInput(
            f"cannot write to {folder}: {error.strerror}; set --out elsewhere"
        ) from error


def _errors(collected: Collected, path: Path) -> Path:
    figure, ((axes,),) = new_figure(1, 1, (6, 3.8))
    error_bars(axes, {size: (one.error, one.std) for size, one in BY_MINIBATCH.items()}, "paper")
    here = {}
    for row in MINIBATCHES:
        if outcome := collected.of(row):
            here[row.minibatch] = (outcome.mean, outcome.std)
    if here:
        error_bars(axes, here, "here")
    over_minibatches(axes)
    axes.legend()
    figure.savefig(path, dpi=120)
    return path


def _curves(
    collected: Collected, panels: Sequence[tuple[Row, Row]], path: Path, validation: bool
) -> Path:
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure, grid = new_figure(lines, columns, (4.2 * columns, 3.4 * lines))
    for axes, pair in zip(grid.flat, panels, strict=True):
        for row, colour in zip(pair, COLOURS, strict=True):
            _setting(axes, row, collected, colour, validation)
        axes.set(xlabel="epochs", ylabel="error, %" if validation else "training error, %")
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    return path


def _setting(axes: Any, row: Row, collected: Collected, colour: str, validation: bool) -> None:
    """Draw a setting's curve, if there are runs, and the paper's final validation error."""
    outcome, paper = collected.of(row), row.reference
    label = f"kn = {row.minibatch:,}, η = {row.rate:g}\npaper {paper} %"
    if outcome:
        curve(axes, outcome.train_curve(), f"{label}, here {outcome} %", colour)
        if validation:
            curve(axes, outcome.val_curve(), "validation", colour, ":")
    axes.errorbar(
        EPOCHS, paper.error, BAND * paper.std, fmt="s", mfc="none", color=colour, capsize=3,
        label=None if outcome else label,
    )  # fmt: skip
