"""What failed, in the last 30 lines of a test run: test, reason, command, ranks' last words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

LINES = 28  # the rest is pytest's last line and the title
WIDTH = 150
SECTION, PRINTED = "launched", "printed"
PRINTED_LINES = 60  # of each launch, in a failure's own report
LAUNCHES = 8  # told of, the last ones
RANK = re.compile(r"^\[(?:1,)?(\d+)\]<(?:stdout|stderr)>: ?(.*)")
HAS_WORDS = re.compile(r"\w")  # as mpirun's rules of dashes have not

_launched: list[tuple[list[str], Path | str]] = []


def note_launch(command: list[str], printed: Path | str = "") -> None:
    """Keep what a test launches, and what it printed or the file that has it."""
    _launched.append((command, printed))


def launched() -> list[tuple[list[str], Path | str]]:
    """Return what this test has launched so far."""
    return list(_launched)


def last_words(printed: str) -> dict[str, str]:
    """Return the last line of each rank that the launcher names, else the last line of all."""
    words: dict[str, str] = {}
    for line in filter(HAS_WORDS.search, printed.splitlines()):
        rank = RANK.match(line)
        if rank and rank[2].strip():
            words[f"rank {rank[1]}"] = rank[2]
        elif not rank:
            words["all"] = line
    return dict(sorted(words.items()))


def describe_launch(command: list[str], printed: Path | str) -> list[str]:
    """Return a launch as lines: its command, and what its ranks said last."""
    words = [f"{who}: {line}" for who, line in last_words(_text(printed)).items()]
    return [f"$ {shlex.join(map(str, command))}", *words]


def _text(printed: Path | str) -> str:
    if isinstance(printed, Path):
        return printed.read_text(errors="replace") if printed.exists() else ""
    return printed


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begin anew for each test."""
    _launched.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add to a failure's report what the test launched, the last first, and where its files are."""
    report = yield
    if report.failed:
        lines = []
        for command, printed in reversed(_launched[-LAUNCHES:]):
            described = describe_launch(command, printed)
            lines += described
            tail = _text(printed).splitlines()[-PRINTED_LINES:]
            report.sections.append((f"{PRINTED} by {cut(described[0])}", "\n".join(tail)))
        if folder := getattr(item, "funcargs", {}).get("tmp_path"):
            lines.append(f"files: {folder}")
        report.sections.append((SECTION, "\n".join(lines)))
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter) -> Iterator[None]:
    """Print the failures once more, last of all."""
    result = yield
    stats = terminalreporter.stats
    failed = [*stats.get("failed", ()), *stats.get("error", ())]
    if failed:
        terminalreporter.section("failed", sep="-")
        for line in summary(
            [(report.nodeid, _reason(report), _lines(report)) for report in failed]
        ):
            terminalreporter.write_line(line)
    return result


def summary(failures: list[tuple[str, str, list[str]]]) -> list[str]:
    """Return at most ``LINES`` lines about failures, each a test's name, reason and lines."""
    shown: list[str] = []
    share = max(3, LINES // len(failures))
    for number, (name, reason, lines) in enumerate(failures):
        left = len(failures) - number
        if len(shown) + 3 > LINES - (left > 1):
            names = ", ".join(name.rpartition("::")[2] for name, _, _ in failures[number:])
            return [*shown, cut(f"and {left} more: {names}")]
        shown += [cut(name), *(cut(f"    {line}") for line in [reason, *_fit(lines, share - 2)])]
    return shown


def _fit(lines: list[str], count: int) -> list[str]:
    """Leave lines out in the middle: the command comes first, the files last."""
    return lines if len(lines) <= count else [*lines[: count - 1], *lines[-1:]][:count]


def cut(line: str) -> str:
    """Return a line that fits, without its middle."""
    return line if len(line) <= WIDTH else f"{line[: WIDTH // 2]} ... {line[-WIDTH // 2 + 5 :]}"


def _reason(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    said = crash.message if crash else str(report.longrepr).strip()
    return next(iter(said.splitlines()), "no reason")


def _lines(report: pytest.TestReport) -> list[str]:
    return next((text.splitlines() for name, text in report.sections if name == SECTION), [])
