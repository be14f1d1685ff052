"""What does training cost beyond the model? ``python -m benchmarks.loop_tax``.

Images/s of ``train_imagenet.py`` on images in memory, log, checks and all, against the barest
PyTorch loop with the same model and settings; both as processes of their own, which take turns.
The demo's small model, a step of which takes 10 ms, is shown as well: the hard case, no target.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Collection
from functools import partial
from typing import NamedTuple

from benchmarks.job import job_flags, measure_job, plain
from benchmarks.measure import taking_turns
from benchmarks.processes import finish, python
from benchmarks.results import Target, check_files, options_of_results, ratio, show
from benchmarks.steady import Span, rate, span_flags, told_marks
from hvd_utils import failure

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


SMALL = Case("resnet8", 24, 32, Span(100, 400))
SMALL_QUICK = Case("resnet8", 24, 8, Span(2, 4))


def read_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = options_of_results("loop_tax", __doc__, rounds=5)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--resolution", type=int, default=64, help="pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="n, images (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=5, help="steps not counted")
    parser.add_argument("--steps", type=int, default=20, help="steps counted")
    parser.add_argument("--cores", type=int, help="and as many threads (default: all)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "tf32", "bf16", "fp16"))
    parser.add_argument("--channels-last", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--compile", default="none", choices=("none", "default", "cudagraphs"))
    parser.add_argument("--no-small", action="store_true", help="leave the small model out")
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
    command = python("-m", "benchmarks.bare_loop", *size, *common, *span_flags(case.span))
    return rate(told_marks(finish(command, cores=cores)), workers * case.batch)


def main() -> None:
    """Measure, print, and say whether the target was met."""
    options = read_options()
    check_files(options)
    common = common_flags(options)
    cases = [SMALL_QUICK]
    if not options.quick:
        span = Span(options.warm_up, options.steps)
        cases = [Case(options.model, options.resolution, options.batch, span)]
        cases += [] if options.no_small else [SMALL]
    rounds = 1 if options.quick else options.rounds
    cores = sorted(os.sched_getaffinity(0))[: 1 if options.quick else options.cores]

    candidates: dict[str, Callable[[], float]] = {}
    for case in cases:
        candidates[f"ours: {case.name}"] = partial(job_rate, case, common, 1, cores)
        candidates[f"bare: {case.name}"] = partial(bare_rate, case, common, 1, cores)
    rates = taking_turns(candidates, rounds, uncounted=0)
    names = ["loop_tax", "small_model"]
    figures = {
        name: ratio(rates, f"ours: {case.name}", f"bare: {case.name}")
        for name, case in zip(names, cases, strict=False)
    }
    title = f"one process on {len(cores)} of them, {options.device}, {options.precision}"
    settings = {"flags": [*map(str, common)]}
    show(options, title, rates, figures, [Target("loop_tax", TARGETS[options.device])], **settings)


if __name__ == "__main__":
    failure.run(main)
