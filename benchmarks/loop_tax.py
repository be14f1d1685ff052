"""What does training cost beyond the model? ``python -m benchmarks.loop_tax``.

Images/s of ``train_imagenet.py`` on images in memory, log, checks and all, against the barest
PyTorch loop with the same model and settings; both as processes of their own, which take turns.
At the paper's 224 pixels and n = 32; and, with no target, where a step is shorter: at 64 pixels,
and with the demo's small model, whose step of 10 ms is the hard case.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Collection
from functools import partial
from typing import NamedTuple

from benchmarks.harness.job import job_flags, measure_job, plain
from benchmarks.harness.processes import finish, python
from benchmarks.harness.results import Target, check_files, options_of_results, ratio, show
from benchmarks.harness.steady import Span, rate, span_flags, told_marks
from dali_pipeline.benchmarking.measure import taking_turns
from hvd_utils.cli.run_main import run_main

TARGETS = {"cpu": 0.98, "cuda": 0.99}


class Case(NamedTuple):
    """A model and its size: pixels and images of a step."""

    model: str
    resolution: int
    batch: int
    span: Span

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{self.model}, {self.resolution} pixels, n = {self.batch}"


SHORTER = {
    "at_64_pixels": Case("resnet50", 64, 32, Span(5, 20)),
    "small_model": Case("resnet8", 24, 32, Span(100, 400)),
}
SMALL_QUICK = Case("resnet8", 24, 8, Span(2, 4))


def read_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = options_of_results("loop_tax", __doc__, rounds=3)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--resolution", type=int, default=224, help="pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="n, images (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=3, help="steps not counted")
    parser.add_argument("--steps", type=int, default=6, help="steps counted")
    parser.add_argument("--cores", type=int, help="and as many threads (default: all)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "tf32", "bf16", "fp16"))
    parser.add_argument("--channels-last", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--compile", default="none", choices=("none", "default", "cudagraphs"))
    parser.add_argument("--no-shorter", action="store_true", help="the first case alone")
    return parser.parse_args()


def common_flags(options: argparse.Namespace) -> list[object]:
    """Return the settings that job and bare loop are both given."""
    layout = "--channels-last" if options.channels_last else "--no-channels-last"
    flags = ["--device", options.device, "--precision", options.precision]
    return [*flags, layout, "--compile", options.compile]


def job_rate(
    case: Case, common: list[object], workers: int = 1, cores: Collection[int] = ()
) -> float:
    """Return images/s of the real job in its steady state: one process, k ``workers``.

    It runs on ``cores``, or on all of them.
    """
    flags = job_flags(*case, *common, "--workers", workers)
    run = partial(finish, cores=cores)
    marks = measure_job(lambda arguments: run(plain(arguments)), flags, case.span)
    return rate(marks, workers * case.batch)


def bare_rate(
    case: Case, common: list[object], workers: int = 1, cores: Collection[int] = ()
) -> float:
    """Return the same of the barest loop, with ``workers`` passes of the case's batch a step."""
    size = ["--model", case.model, "--resolution", case.resolution]
    size += ["--batch-per-worker", case.batch, "--workers", workers]
    command = python("-m", "benchmarks.harness.bare_loop", *size, *common, *span_flags(case.span))
    return rate(told_marks(finish(command, cores=cores)), workers * case.batch)


def main() -> None:
    """Measure, print, and say whether the target was met."""
    options = read_options()
    check_files(options)
    common = common_flags(options)
    span = Span(options.warm_up, options.steps)
    cases = {"loop_tax": Case(options.model, options.resolution, options.batch, span)}
    if options.quick:
        cases = {"loop_tax": SMALL_QUICK}
    elif not options.no_shorter:
        cases |= SHORTER
    rounds = 1 if options.quick else options.rounds
    cores = sorted(os.sched_getaffinity(0))[: 1 if options.quick else options.cores]

    candidates: dict[str, Callable[[], float]] = {}
    for case in cases.values():
        candidates[f"ours: {case.name}"] = partial(job_rate, case, common, 1, cores)
        candidates[f"bare: {case.name}"] = partial(bare_rate, case, common, 1, cores)
    rates = taking_turns(candidates, rounds, uncounted=0)
    figures = {
        name: ratio(rates, f"ours: {case.name}", f"bare: {case.name}")
        for name, case in cases.items()
    }
    title = f"one process on {len(cores)} of them, {options.device}, {options.precision}"
    settings = {"flags": [*map(str, common)]}
    show(options, title, rates, figures, [Target("loop_tax", TARGETS[options.device])], **settings)


if __name__ == "__main__":
    run_main(main)
