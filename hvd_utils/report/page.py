"""The page: one HTML file without external resources."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from hvd_utils.inspect.run_state import RUNNING
from hvd_utils.report import sections
from hvd_utils.report.html import Html, join, tag
from hvd_utils.report.panel import Panel, readout, to_svg
from hvd_utils.report.series import RunData
from hvd_utils.report.words import moment, settings_of

HERE = Path(__file__).parent
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_page(runs: Sequence[RunData], panels: Sequence[Panel]) -> str:
    """Return the page about ``runs``, which shows ``panels``."""
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    body = join(
        tag("header", tag("h1", title), tag("p", _subtitle(runs), class_="subtitle")),
        tag(
            "main",
            sections.cards(runs[0]) if len(runs) == 1 else _several(runs),
            _pictures(runs, panels),
            sections.slow_ranks(runs),
            sections.launches(runs),
            sections.epochs(runs),
            sections.provenance(runs),
        ),
        tag("footer", _footer(runs)),
        tag("script", Html((HERE / "page.js").read_text(encoding="utf-8"))),
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} · report"),
        tag("style", Html((HERE / "page.css").read_text(encoding="utf-8"))),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"


def _subtitle(runs: Sequence[RunData]) -> str:
    if len(runs) == 1:
        return settings_of(runs[0])
    models = ", ".join(dict.fromkeys(str(run.state.settings.get("model")) for run in runs))
    groups = len({run.group for run in runs})
    return f"{models}; {groups} different settings" if groups > 1 else settings_of(runs[0])


def _several(runs: Sequence[RunData]) -> Html:
    return join(
        sections.final_table(runs), sections.table_of_runs(runs), sections.differences(runs)
    )


def _pictures(runs: Sequence[RunData], panels: Sequence[Panel]) -> Html:
    keys = None
    if len(runs) > 1:
        items = [tag("li", sections.key(run, runs), " ", run.name) for run in runs]
        keys = tag("ul", items, class_="keys", aria_label="key")
    notes = []
    if any(run.restarts for run in runs):
        notes.append("▲ and a dotted line: a restart.")
    if any(run.reference for run in runs):
        notes.append("Dashed: the paper's figure for these settings, ± 2 standard deviations.")
    notes.append("Point at a picture, or go there by Tab and use ← and →, to read values.")
    figures = [_picture(panel) for panel in panels]
    return tag(
        "section",
        tag("h2", "Course"),
        keys,
        tag("p", [note + " " for note in notes], class_="note"),
        tag("div", figures, class_="pictures"),
    )


def _picture(panel: Panel) -> Html:
    picture = Html(to_svg(panel))
    data = json.dumps(readout(panel), separators=(",", ":")).replace("<", "\\u003c")
    read = panel.x_unit and panel.lines
    return tag(
        "figure",
        tag("figcaption", tag("h3", panel.title), tag("p", panel.note)),
        tag("div", picture, class_="picture", tabindex=0 if read else None),
        tag("output", aria_live="polite") if read else None,
        tag("script", Html(data), type="application/json") if read else None,
        id=panel.name,
    )


def _footer(runs: Sequence[RunData]) -> str:
    text = f"As of {moment(runs[0].state.now)}."
    if any(run.state.state == RUNNING for run in runs):
        text += " Runs are under way: the same command shows them anew."
    return text
