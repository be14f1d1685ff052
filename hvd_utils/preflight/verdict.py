"""A verdict: one line of the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hvd_utils.cli.errors import EXIT_BAD_INPUT, EXIT_FAILED
from hvd_utils.cli.ranks import name_ranks, some

OK, WARN, FAIL, SKIP = "ok", "warn", "fail", "skip"


@dataclass(frozen=True)
class Verdict:
    """One line: check, ok, warn, fail or skip, what was seen; for warn and fail the remedy.

    ``machine`` is whether a machine or the time failed, which another start may not meet again.
    """

    check: str
    verdict: str
    seen: str
    remedy: str = ""
    machine: bool = False

    def as_dict(self) -> dict[str, str | bool]:
        """Return this as plain values."""
        return asdict(self)


def groups_of(values: Mapping[int, Any]) -> list[tuple[Any, list[int]]]:
    """Return each distinct value with the ranks that have it; the most frequent value first."""
    groups: dict[Any, list[int]] = {}
    for rank in sorted(values):
        groups.setdefault(values[rank], []).append(rank)
    return sorted(groups.items(), key=lambda group: (-len(group[1]), group[1][0]))


def odd_ones(what: str, values: Mapping[int, Any], hosts: Mapping[int, str]) -> str | None:
    """Return who differs from the most frequent value and how; None where all have the same."""
    (common, _), *others = groups_of(values)
    if not others:
        return None
    told = some(f"{value} on {name_ranks(ranks, hosts)}" for value, ranks in others)
    return f"{what} {common} on most, but {told}"


def worst(verdicts: Iterable[Verdict]) -> str:
    """Return the gravest verdict, ok where there is none."""
    found = {verdict.verdict for verdict in verdicts}
    return next((kind for kind in (FAIL, WARN) if kind in found), OK)


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """Return 0, 1 where only machines or time failed, or 2 where another start fails as well."""
    failed = [verdict for verdict in verdicts if verdict.verdict == FAIL]
    if not failed:
        return 0
    return EXIT_FAILED if all(verdict.machine for verdict in failed) else EXIT_BAD_INPUT


def table(verdicts: Sequence[Verdict]) -> str:
    """Return the lines of the table: verdict, check and what was seen; below it the remedy."""
    width = max(len(verdict.check) for verdict in verdicts)
    lines = []
    for one in verdicts:
        lines.append(f"{one.verdict:4}  {one.check:{width}}  {one.seen}")
        if one.remedy:
            lines.append(f"{'':{width + 6}}  -> {one.remedy}")
    return "\n".join(lines)
