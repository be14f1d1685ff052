"""What do a second rank and logical workers cost? ``python -m benchmarks.scaling``.

One rank on one core, then two with a core each: efficiency is the two's images/s by twice the
one's, at the paper's n = 32 and 224 pixels, and at few small images, where the same gradients are
summed many times as often: the hard case, no target. What this machine allows at most, whatever the
software, is beside it: two jobs of one rank at the same time that do not communicate, which share
caches and memory. ``waiting`` is what such jobs need not do: how much of a step the quicker rank
waits for the slower, on average over both. And, on one core with the small images, k = 8 logical
workers of one process against a plain PyTorch loop that accumulates as many passes, and against
k = 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.harness.job import ENTRY, job_flags, measure_job, one_core_each, plain
from benchmarks.harness.processes import finish, finish_all
from benchmarks.harness.results import Target, check_files, options_of_results, ratio, show
from benchmarks.harness.steady import NotAtOnce, Span, job_marks, rate, rates_at_once
from benchmarks.loop_tax import Case, bare_rate, job_rate
from dali_pipeline.benchmarking.measure import taking_turns
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.run_main import run_main

RANKS = 2
WORKERS = 8  # k, carried by one process
TRIES = 7  # at two jobs at once
TARGETS = [Target("efficiency", 0.95), Target("logical_workers", 0.98)]


def read_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = options_of_results("scaling", __doc__, rounds=3)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--resolution", type=int, default=224, help="pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="n, images (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=3, help="steps not counted")
    parser.add_argument("--steps", type=int, default=4, help="steps counted")
    return parser.parse_args()


def together(case: Case, waiting: list[float]) -> float:
    """Return images/s of two ranks with a core each that train one model.

    To ``waiting`` comes how much of a step the two waited for one another, on average, 0 to 1.
    """
    marks = measure_job(
        lambda arguments: finish(one_core_each(RANKS, ENTRY, *arguments)),
        job_flags(*case),
        case.span,
    )
    waiting.append(statistics.mean(mark.waiting for mark in marks[1:]))
    return rate(marks, RANKS * case.batch)


def apart(case: Case, cores: list[int]) -> float:
    """Return images/s of two jobs of one rank at the same time, with a core each.

    Where one was over before the other had begun, both are made again with twice the steps.
    """
    for _ in range(TRIES - 1):
        with contextlib.suppress(NotAtOnce):
            return _apart(case, cores)
        case = case._replace(span=Span(case.span.warm_up, 2 * case.span.steps))
    return _apart(case, cores)


def _apart(case: Case, cores: list[int]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / str(place) for place in range(RANKS)]
        commands = [plain([*job_flags(*case), "--output", output]) for output in outputs]
        finish_all(commands, cores=[[core] for core in cores[:RANKS]])
        jobs = [job_marks(output, case.span) for output in outputs]
    return sum(rates_at_once(jobs, case.batch))


def main() -> None:
    """Measure, print, and say which targets were met."""
    options = read_options()
    check_files(options)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < RANKS:
        raise BadInput(f"this measures {RANKS} ranks with a core each: there is one core only")
    case = Case(
        options.model, options.resolution, options.batch, Span(options.warm_up, options.steps)
    )
    small = Case(options.model, 64, 16, Span(5, 20))
    if options.quick:
        case = small = Case("resnet8", 24, 4, Span(2, 20))
    few = small._replace(span=Span(1, 5))  # of k passes each

    waiting: dict[str, list[float]] = {"paper's": [], "small": []}

    def ranks(of: Case, name: str) -> dict[str, Callable[[], float]]:
        return {
            f"{name}, 1 rank": partial(job_rate, of, [], 1, cores[:1]),
            f"{name}, 2 ranks": partial(together, of, waiting[name]),
            f"{name}, 2 jobs apart": partial(apart, of, cores),
        }

    candidates: dict[str, Callable[[], float]] = {
        **ranks(case, "paper's"),
        **({} if options.quick else ranks(small, "small")),
        f"small, k = {WORKERS}": partial(job_rate, few, [], WORKERS, cores[:1]),
        f"bare loop, {WORKERS} passes": partial(bare_rate, few, [], WORKERS, cores[:1]),
    }
    rates = taking_turns(candidates, 1 if options.quick else options.rounds, uncounted=0)
    figures = {}
    for name, suffix in (("paper's", ""), ("small", "_small")):
        if f"{name}, 1 rank" in rates:
            one, two, apart_ = (f"{name}, {kind}" for kind in ("1 rank", "2 ranks", "2 jobs apart"))
            figures[f"efficiency{suffix}"] = ratio(rates, two, one) / RANKS
            figures[f"ceiling{suffix}"] = ratio(rates, apart_, one) / RANKS
            figures[f"of_the_ceiling{suffix}"] = ratio(rates, two, apart_)
            figures[f"waiting{suffix}"] = statistics.median(waiting[name])
    workers = f"small, k = {WORKERS}"
    figures["logical_workers"] = ratio(rates, workers, f"bare loop, {WORKERS} passes")
    if "small, 1 rank" in rates:
        figures["logical_workers_vs_one"] = ratio(rates, workers, "small, 1 rank")
    title = f"{case.model} at {case.resolution} pixels, n = {case.batch}"
    title += f"; small: {small.resolution} pixels, n = {small.batch}"
    show(options, title, rates, figures, TARGETS)


if __name__ == "__main__":
    run_main(main)
