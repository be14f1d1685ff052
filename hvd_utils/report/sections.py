"""The report's tables and lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hvd_utils.report.drawing import colour_of
from hvd_utils.report.html import Html, facts, table, tag
from hvd_utils.report.panel import VARIABLES
from hvd_utils.report.series import RunData, differing
from hvd_utils.report.words import (
    against_paper,
    best_epoch,
    clock,
    final_figures,
    last_five,
    moment,
    percent,
    progress,
    standing,
    value_text,
)
from hvd_utils.timing.stopwatch import PARTS
from hvd_utils.timing.stragglers import SLOWER

ROWS = 100  # most epochs of a run in the table
LAUNCHES = 30  # most of a run that are listed


def cards(run: RunData) -> Html:
    """A run's figures, large."""
    [figure] = final_figures([run])
    big = [
        ("state", standing(run)),
        ("progress", (progress(run), "")),
        ("top-1 error, median of the last 5 epochs", last_five(run)),
    ]
    if figure.reference:
        big.append(("the paper's", against_paper(figure)))
    big += [
        ("best epoch", best_epoch(run)),
        ("throughput", (f"{run.images_per_second:,.0f}", "images/s")),
        ("time in training", (clock(run.state.elapsed[1]), "")),
    ]
    if run.split is not None:
        big.append(("a step's time", _split(run)))
    if run.restarts:
        big.append(("restarts", (str(len(run.restarts)), "")))
    if run.state.of("bad_images"):
        big.append(("bad images", (f"{run.state.of('bad_images')[-1]['count']:,}", "passed over")))
    cards = ((name, (value, tag("small", note) if note else "")) for name, (value, note) in big)
    return tag("section", facts(cards), class_="figures", aria_label="figures")


def final_table(runs: Sequence[RunData]) -> Html:
    """What the runs of each setting reached, and the paper."""
    figures = final_figures(runs)
    firsts = [list(runs).index(figure.runs[0]) for figure in figures]
    columns: dict[str, list[Any]] = {}
    columns["runs"] = [[(key(run, runs), " ") for run in figure.runs] for figure in figures]
    for name, values in differing(runs).items():
        if name in runs[0].result.experiment and name != "seed":
            columns[name] = [value_text(values[first]) for first in firsts]
    columns["top-1 error"] = [percent(figure.mean, figure.std) for figure in figures]
    columns["finished"] = [len(figure.finished) for figure in figures]
    if any(figure.reference for figure in figures):
        columns["paper"] = [_plain(against_paper(figure)) for figure in figures]
    if any(figure.note for figure in figures):
        columns["note"] = [figure.note for figure in figures]
    text = (
        "Of each run the median of the last 5 epochs; mean ± standard deviation over runs that "
        "differ in their seed alone."
    )
    rows = zip(*columns.values(), strict=True)
    return tag("section", tag("h2", "Final figures"), table(columns, rows, text))


def table_of_runs(runs: Sequence[RunData]) -> Html:
    """How each run stands."""
    heads = [
        "run", "state", "progress", "best", "last 5", "images/s", "time", "restarts",
    ]  # fmt: skip
    rows = [
        [
            (key(run, runs), " ", run.name),
            _plain(standing(run)),
            progress(run),
            _plain(best_epoch(run)),
            _plain(last_five(run)).replace(",", ""),
            f"{run.images_per_second:,.0f}",
            clock(run.state.elapsed[1]),
            len(run.restarts),
        ]
        for run in runs
    ]
    text = "Validation errors; images/s is the median over the last launch."
    return tag("section", tag("h2", "Runs"), table(heads, rows, text))


def differences(runs: Sequence[RunData]) -> Html:
    """The settings in which runs differ."""
    found = differing(runs)
    if not found:
        return tag("section", tag("h2", "Settings that differ"), tag("p", "None."))
    heads = ["setting", *(key(run, runs) for run in runs)]
    rows = [[tag("code", name), *map(value_text, values)] for name, values in found.items()]
    text = "All else is the same."
    return tag("section", tag("h2", "Settings that differ"), table(heads, rows, text))


def slow_ranks(runs: Sequence[RunData]) -> Html:
    """Who was slow for long."""
    found = [(run, spell) for run in runs for spell in run.slow]
    if not found:
        text = "No rank was slow for long."
        return tag("section", tag("h2", "Straggler ranks"), tag("p", text))
    found.sort(key=lambda pair: -pair[1].ratio)
    heads = ["rank", "host", "at", "times the median", "from step", "to step"]
    rows = [
        [s.rank, s.host, s.at, f"{s.ratio:.1f}", f"{s.first:,}", f"{s.last:,}"]
        for _, s in found[:LAUNCHES]
    ]
    if len(runs) > 1:
        heads.insert(0, "run")
        rows = [[key(run, runs), *row] for (run, _), row in zip(found, rows, strict=False)]
    text = f"Their own part of a step took more than {SLOWER} times the median's; slowest first."
    return tag("section", tag("h2", "Straggler ranks"), table(heads, rows, text))


def launches(runs: Sequence[RunData]) -> Html | None:
    """When and where the runs that were started again began."""
    if not any(run.restarts for run in runs):
        return None
    rows = []
    for run in filter(lambda run: run.restarts, runs):
        whose = (key(run, runs), " ") if len(runs) > 1 else ""
        for number, launch in list(enumerate(run.launches, 1))[-LAUNCHES:]:
            event = launch.event
            rows.append(
                [
                    (whose, str(number)),
                    moment(event["time"]),
                    f"{launch.step:,}",
                    event.get("processes", "–"),
                    _few(list(event.get("hosts", {})), 4),
                ]
            )
    heads = ["launch", "began", "at step", "processes", "hosts"]
    text = (
        f"The last {LAUNCHES} at most. What an interrupted launch did after its last checkpoint "
        "was done again."
    )
    return tag("section", tag("h2", "Launches"), table(heads, rows, text))


def epochs(runs: Sequence[RunData]) -> Html:
    """The figures of each epoch."""
    heads = ["epoch", "step", "rate", "training loss", "top-1 error", "top-5 error", "images/s"]
    tables = [
        tag(
            "details",
            tag("summary", (key(run, runs), " ", run.name) if len(runs) > 1 else "Figures"),
            table(heads, _epoch_rows(run), f"Epochs of {run.name}; validation errors in percent."),
        )
        for run in runs
        if len(run.epochs)
    ]
    return tag("section", tag("h2", "By epoch"), tables) if tables else None


def provenance(runs: Sequence[RunData]) -> Html:
    """With what each run was made."""
    parts = []
    for run in runs:
        name = (key(run, runs), " ", run.name) if len(runs) > 1 else "Environment"
        settings = ((n, value_text(v)) for n, v in run.state.settings.items())
        parts.append(
            tag(
                "details",
                tag("summary", name),
                tag("h3", "Last launch"),
                facts(_environment(run)),
                tag("h3", "Settings"),
                facts(settings),
                open_="" if len(runs) == 1 else None,
            )
        )
    return tag("section", tag("h2", "Provenance"), parts, class_="provenance")


def key(run: RunData, runs: Sequence[RunData]) -> Html:
    """A run's letter beside its colour."""
    colour, dashes = colour_of(run, runs)
    style = f"--own: var({VARIABLES[colour]})"
    kind = "key" if dashes == "-" else "key dashed"
    return tag("span", run.tag, class_=kind, style=style, title=run.name)


def _split(run: RunData) -> tuple[str, str]:
    """Return the largest part of a step, and the others."""
    shares = sorted(zip(run.split, PARTS, strict=True), reverse=True)
    first, *others = (f"{part} {100 * share:.0f}\u00a0%" for share, part in shares)
    return first, ", ".join(others)


def _plain(pair: tuple[str, str]) -> str:
    return ", ".join(filter(None, pair))


def _epoch_rows(run: RunData) -> Iterator[list[Any]]:
    events = run.epochs.events
    for n in np.unique(np.linspace(0, len(events) - 1, ROWS).astype(int)):
        event = events[n]
        yield [
            event["epoch"] + 1,
            f"{event['step']:,}",
            f"{event['lr']:.4g}",
            f"{event['train_loss']:.4f}",
            f"{event['val_top1_error']:.2f}",
            f"{event['val_top5_error']:.2f}",
            f"{event['images_per_second']:,.0f}",
        ]


def _environment(run: RunData) -> Iterator[tuple[str, Any]]:
    launch = run.state.launch or {}
    yield "folder", str(run.state.folder.resolve())
    yield "command", tag("code", " ".join(map(str, launch.get("command", ()))))
    hosts = launch.get("hosts", {})
    places = _few([f"{host} × {count}" for host, count in hosts.items()], 8)
    yield "processes", f"{launch.get('processes', '–')}: {places}"
    yield "devices", ", ".join(launch.get("devices", ()))
    yield "platform", f"{launch.get('platform')}, Python {launch.get('python')}"
    packages = launch.get("packages") or {}
    yield "packages", ", ".join(f"{name} {found}" for name, found in packages.items() if found)
    git = launch.get("git")
    if git:
        changed = len(git.get("changed", ()))
        yield "code", f"{git.get('commit')}" + (f", {changed} files changed" if changed else "")


def _few(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
