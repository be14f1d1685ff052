"""The figures of a report as text: state, results, and the paper's results beside them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from hvd_utils.inspect.final import by_settings, mean_and_std
from hvd_utils.inspect.run_state import FINISHED, RUNNING, STOPPED
from hvd_utils.paper.results import Reference
from hvd_utils.report.series import RunData


@dataclass(frozen=True)
class Figure:
    """What the runs of one setting reached; errors in percent."""

    runs: Sequence[RunData]
    finished: Sequence[RunData]
    mean: float | None  # None: no run has finished
    std: float | None  # None: of one run, or of equal seeds
    reference: Reference | None
    note: str


def final_figures(runs: Sequence[RunData]) -> list[Figure]:
    """Return the figure of each setting by the paper's protocol, over its finished runs."""
    of_result = {id(run.result): run for run in runs}
    figures = []
    for group in by_settings(run.result for run in runs):
        members = [of_result[id(result)] for result in group]
        finished = [run for run in members if run.result.finished]
        mean = std = None
        notes = []
        if finished:
            mean, std = mean_and_std([run.result.final_error for run in finished])
        seeds = [run.result.experiment["seed"] for run in finished]
        if len(set(seeds)) < len(seeds):
            std = None
            notes.append("runs of the same seed, so their spread says nothing")
        if len({run.result.val_images for run in finished}) > 1:
            mean = std = None
            notes.append("validated on different data, so not averaged")
        unfinished = [run.tag for run in members if not run.result.finished]
        if unfinished and finished:
            notes.append(f"left out, not finished: {', '.join(unfinished)}")
        references = [run.reference for run in members if run.reference]
        figures.append(
            Figure(
                members, finished, mean, std, references[0] if references else None,
                "; ".join(notes),
            )
        )  # fmt: skip
    return figures


def percent(mean: float | None, std: float | None = None) -> str:
    """Return ``23.74 ± 0.09 %``, without what is not known."""
    if mean is None:
        return "–"
    return f"{mean:.2f}" + (f" ± {std:.2f}" if std is not None else "") + " %"


def settings_of(run: RunData) -> str:
    """Return model, recipe, k, n and kn in a line."""
    settings = run.state.settings
    launch = run.state.launch or {}
    recipe = str(settings.get("recipe", "?")).rsplit("/", 1)[-1].removesuffix(".yaml")
    return (
        f"{settings.get('model')}, recipe {recipe}, "
        f"k = {launch.get('workers') or settings.get('workers')} workers of "
        f"n = {settings.get('batch_per_worker')} images, kn = {run.minibatch:,}"
    )


def standing(run: RunData) -> tuple[str, str]:
    """Return how the run stands in a word or two, and what there is to add."""
    state = run.state
    if state.state == FINISHED:
        return "finished", ""
    if state.state == RUNNING:
        return "running", "" if state.left is None else f"{clock(state.left)} left"
    if state.state == STOPPED:
        return "told to stop", "all saved"
    errors = f"; see {', '.join(state.errors)}" if state.errors else ""
    return "interrupted", f"last sign of life {moment(state.last_sign)}{errors}"


def progress(run: RunData) -> str:
    """Return how many epochs, or steps, of how many."""
    done, epochs = len(run.epochs), run.state.epochs
    limit = run.state.settings.get("max_steps")
    if limit or not epochs:
        total = run.state.total_steps
        return f"{run.state.step:,}" + (f" of {total:,} steps" if total else " steps")
    return f"{done} of {epochs} epochs"


def best_epoch(run: RunData) -> tuple[str, str]:
    """Return the lowest validation error, and in which epoch."""
    found = run.result.top1_errors
    if not found:
        return "–", ""
    best = min(range(len(found)), key=found.__getitem__)
    return percent(found[best]), f"epoch {best + 1}"


def last_five(run: RunData) -> tuple[str, str]:
    """Return the median of the last 5 epochs, and whether more are to come."""
    if not run.result.top1_errors:
        return "–", ""
    return percent(run.result.final_error), "" if run.result.finished else "so far"


def against_paper(figure: Figure) -> tuple[str, str]:
    """Return the paper's figure; and where it stands and how far ours lies from it."""
    if not figure.reference:
        return "–", ""
    text = figure.reference.source
    if figure.mean is not None:
        text += f"; here {figure.mean - figure.reference.error:+.2f}".replace("-", "−")
    return f"{figure.reference} %", text


def clock(seconds: float) -> str:
    """Return seconds as minutes and seconds, and hours if there are any."""
    return tqdm.format_interval(round(seconds))


def moment(seconds: float) -> str:
    """Return a point in time, local."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def value_text(value: Any) -> str:
    """Return a setting's value as a user would write it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(value_text(each) for each in value)
    return str(value)
