"""``pytest --by-file``: how long each file of tests takes, and how many processes it starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from support.failures import launched

STARTS, QUICK = "starts", "quick starts"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--by-file", action="store_true", help="seconds and starts of each file")


def starts(command: list[str]) -> int:
    """Return how many ranks a command starts."""
    return int(command[command.index("-np") + 1]) if "-np" in command else 1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    """Add to a test's last report how many processes it started."""
    report = yield
    if call.when == "teardown":
        for command, _ in launched():
            kind = QUICK if any("python_client.py" in str(word) for word in command) else STARTS
            report.user_properties.append((kind, starts(list(map(str, command)))))
    return report


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Print a row a file, the longest first."""
    if not config.getoption("--by-file"):
        return
    seconds, counts, tests = Counter(), {STARTS: Counter(), QUICK: Counter()}, Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                file = report.nodeid.split("::")[0]
                seconds[file] += report.duration
                tests[file] += report.when == "call"
                if report.when == "teardown":
                    for kind, count in report.user_properties:
                        counts[kind][file] += count
    terminalreporter.section("by file")
    terminalreporter.write_line("| file | tests | seconds | starts | quick starts |")
    terminalreporter.write_line("|---|---|---|---|---|")
    for file, total in seconds.most_common():
        row = (tests[file], f"{total:.0f}", counts[STARTS][file], counts[QUICK][file])
        terminalreporter.write_line(f"| {file} | {' | '.join(map(str, row))} |")
    row = (tests.total(), f"{seconds.total():.0f}", *(c.total() for c in counts.values()))
    terminalreporter.write_line(f"| all | {' | '.join(map(str, row))} |")
