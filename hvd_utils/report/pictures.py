"""The pictures of a report, in the order of its page."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib

from hvd_utils.report import accuracy, panel, speed
from hvd_utils.report.axes import clock_axis, course_axis
from hvd_utils.report.panel import Panel
from hvd_utils.report.series import RunData


def draw(runs: Sequence[RunData]) -> list[Panel]:
    """Return the pictures that these runs give, in the order of the page."""
    with matplotlib.rc_context(panel.STYLE):
        return _draw(runs)


def _draw(runs: Sequence[RunData]) -> list[Panel]:
    course, clock = course_axis(runs), clock_axis(runs)
    panels = [
        accuracy.loss(runs, course),
        accuracy.errors(runs, course),
        accuracy.end_of_errors(runs, course),
        accuracy.by_minibatch(runs),
        accuracy.loss(runs, clock),
        accuracy.errors(runs, clock),
        accuracy.rates(runs, course),
        speed.throughput(runs, course),
        speed.split_bars(runs) if len(runs) > 1 else speed.split_course(runs[0], course),
        speed.spread(runs[0], course) if len(runs) == 1 else None,
        speed.slow_ranks(runs, course),
    ]
    found = [each for each in panels if each]
    for each in found:
        each.finish()
    return found
