"""The report as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hvd_utils.inspect.status import LABEL, WIDTH
from hvd_utils.inspect.status import show as show_state
from hvd_utils.report.series import RunData, differing, thin
from hvd_utils.report.words import against_paper, final_figures, percent, value_text

LEVELS = "▁▂▃▄▅▆▇█"
LINE = 40  # columns of a curve


def show(runs: Sequence[RunData]) -> str:
    """Return how the runs stand, their curves, what they reached and in what they differ."""
    parts = [_one(run, len(runs) > 1) for run in runs]
    parts.append("\n".join(_finals(runs)))
    if len(runs) > 1:
        parts.append("\n".join(_differences(runs)))
    return "\n\n".join(parts)


def _one(run: RunData, tagged: bool) -> str:
    curves = [
        ("loss", run.steps["loss"], "{:.4g}"),
        ("train error", run.steps["train_top1_error"], "{:.2f} %"),
        ("val error", run.epochs["val_top1_error"], "{:.2f} %"),
        ("rate", np.log10(run.steps["lr"].clip(min=1e-30)), "{:.4g}"),
        ("images/s", run.steps["images_per_second"], "{:,.0f}"),
    ]
    lines = [f"{run.tag}: " * tagged + show_state(run.state)]
    for name, values, form in curves:
        known = values[np.isfinite(values)]
        if not len(known):
            continue
        ends = (10**known if name == "rate" else known)[[0, -1]]
        first, last = (form.format(end) for end in ends)
        lines.append(f"{name:{LABEL}}{first:>9} {sparkline(known, LINE)} {last}")
    return "\n".join(lines)


def sparkline(values: np.ndarray, width: int) -> str:
    """Return a curve of at most so many columns, from its least to its most."""
    [means] = thin(width, values)
    low, high = means.min(), means.max()
    if high == low:
        return LEVELS[0] * len(means)
    level = (means - low) / (high - low) * (len(LEVELS) - 1)
    return "".join(LEVELS[n] for n in level.round().astype(int))


def _finals(runs: Sequence[RunData]) -> Iterator[str]:
    yield "top-1 error: median of the last 5 epochs, mean ± std over seeds"
    for figure in final_figures(runs):
        tags = ", ".join(run.tag for run in figure.runs) if len(runs) > 1 else "this run"
        text = percent(figure.mean, figure.std) if figure.finished else "not finished"
        if len(figure.finished) > 1:
            text += f" over {len(figure.finished)} runs"
        yield f"  {tags:{LABEL - 2}}{text}"
        if figure.reference:
            yield " " * LABEL + "the paper's: " + ", ".join(against_paper(figure))
        if figure.note:
            yield " " * LABEL + figure.note


def _differences(runs: Sequence[RunData]) -> Iterator[str]:
    found = differing(runs)
    if not found:
        yield "settings that differ: none"
        return
    yield "settings that differ"
    table = [["", *(run.tag for run in runs)]]
    table += [[name, *map(value_text, values)] for name, values in found.items()]
    widths = [max(len(row[n]) for row in table) for n in range(len(table[0]))]
    wide = sum(widths) + 2 * len(widths) > WIDTH
    for row in table[1:] if wide else table:
        if wide:  # a column a run does not fit: the values one after the other
            pairs = zip((run.tag for run in runs), row[1:], strict=True)
            yield f"  {row[0]}: " + ", ".join(f"{tag} {value}" for tag, value in pairs)
        else:
            cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
            yield ("  " + "  ".join(cells)).rstrip()
