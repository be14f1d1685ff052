"""The study's results as text beside the paper's, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.study.rows import FIGURE1, LARS, ORDER, TABLE1, TABLE2, Row
from benchmarks.study.verdicts import Verdict
from hvd_utils.inspect.outcome import Outcome

Outcomes = Mapping[str, Outcome]

TABLES: Mapping[str, tuple[str, Sequence[Row]]] = {
    "table1": ("Table 1: warmup", TABLE1),
    "table2": ("Table 2: rate, γ", TABLE2),
    "figure1": ("Figure 1: other minibatches", FIGURE1),
    "lars": ("LARS, beyond the paper", LARS),
    "order": ("The shuffle of earlier versions", ORDER),
}
WIDTH = 33  # of a setting's title


def lines(outcomes: Outcomes, verdicts: Iterable[Verdict]) -> list[str]:
    """Return the tables and the verdicts as lines of Markdown."""
    text = ["| top-1 error, % | workers | here | paper |", "|---|---|---|---|"]
    for title, rows in TABLES.values():
        measured = [row for row in rows if row.name in outcomes]
        text += [f"| **{title}** | | | |"] if measured else []
        text += [
            f"| {row.title} | {row.workers} | {outcomes[row.name]} | {row.paper or ''} |"
            for row in measured
        ]
    text += ["", "| claim | paper | here: difference, 95 % interval | p | verdict |"]
    text += ["|---|---|---|---|---|", *map(_verdict_line, verdicts)]
    return text


def _verdict_line(one: Verdict) -> str:
    claim, found = one.claim, one.found
    says = "" if claim.effect is None else f"{claim.effect:+.2f}"
    says = f"within {claim.margin:g}" if claim.margin else says
    here = f"{found.difference:+.2f} ({found.low:+.2f} to {found.high:+.2f})" if found else ""
    p = "" if one.p is None else "< 0.001" if one.p < 0.001 else f"{one.p:.3f}"
    return f"| {claim.text} | {says} | {here} | {p} | **{one.verdict}** |"


def as_json(outcomes: Outcomes, verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """Return all figures by table and setting, and the verdicts by claim."""
    tables = {
        name: {row.name: _figures(row, outcomes[row.name]) for row in rows if row.name in outcomes}
        for name, (_, rows) in TABLES.items()
    }
    found = {
        one.claim.text: {
            "verdict": one.verdict,
            "p": one.p,
            "margin": one.claim.margin,
            "found": one.found and one.found._asdict(),
        }
        for one in verdicts
    }
    return {**tables, "verdicts": found}


def _figures(row: Row, outcome: Outcome) -> dict[str, Any]:
    return {
        "mean": outcome.mean,
        "std": outcome.std,
        "by_seed": dict(outcome.errors),
        "workers": row.workers,
        "settings": dict(row.settings),
        "paper": row.paper._asdict() if row.paper else None,
    }
