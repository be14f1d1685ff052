"""Are we ahead of those who do the same work? ``python -m benchmarks.peers``.

Two ranks with one core each train the same model on the same data: ours is ``train_imagenet.py``
with its defaults; the others are Horovod's ImageNet example, torchvision's reference and
pytorch/examples, see ``peer_loops``. Data is noise in memory, then JPEGs of ImageNet's sizes, which
the others read with as many DataLoader workers as serve them best. All take turns.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness.job import ENTRY, job_flags, measure_job, one_core_each
from benchmarks.harness.processes import finish
from benchmarks.harness.results import Rates, Target, check_files, options_of_results, ratio, show
from benchmarks.harness.steady import Span, rate, span_flags, told_marks
from dali_pipeline.benchmarking.measure import taking_turns
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.run_main import run_main

RANKS = 2
PEERS = {  # module of peer_loops and launcher, by name
    "horovod": ("horovod_example", "horovod"),
    "torchvision": ("torchvision_reference", "torchrun"),
    "examples": ("pytorch_example", "torchrun"),
}
LOADER_WORKERS = (0, 1, 2)  # DataLoader processes of a rank
TARGETS = {"memory": 1.05, "jpegs": 1.2}
FIGURES = {"memory": "in_memory_vs_best", "jpegs": "jpegs_vs_best"}


class Work(NamedTuple):
    """What every candidate has to do."""

    model: str
    resolution: int
    batch: int
    span: Span
    data: Path | None  # none: noise in memory

    @property
    def images(self) -> int:
        """Images of a step of all ranks."""
        return RANKS * self.batch


def read_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = options_of_results("peers", __doc__, rounds=3)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--resolution", type=int, default=64, help="pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="n, images (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=5, help="steps not counted")
    parser.add_argument("--steps", type=int, default=15, help="steps counted")
    parser.add_argument("--data", default="memory,jpegs", help="(default: %(default)s)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="JPEGs (default: made up)")
    parser.add_argument("--only", default=",".join(PEERS), help="peers (default: %(default)s)")
    options = parser.parse_args()
    for flag, known in (("data", TARGETS), ("only", PEERS)):
        names = getattr(options, flag).split(",")
        setattr(options, flag, names)
        if unknown := set(names) - set(known):
            raise BadInput(f"--{flag} {unknown.pop()}: it takes names of {', '.join(known)}")
    return options


def our_rate(work: Work) -> float:
    """Return images/s of our job."""
    flags = job_flags(work.model, work.resolution, work.batch, work.span, data=work.data)
    marks = measure_job(
        lambda arguments: finish(one_core_each(RANKS, ENTRY, *arguments)), flags, work.span
    )
    return rate(marks, work.images)


def peer_rate(name: str, work: Work, loader_workers: int = 1) -> float:
    """Return images/s of a peer; ``loader_workers`` processes of each rank read JPEGs."""
    module, launcher = PEERS[name]
    flags = ["--model", work.model, "--resolution", work.resolution]
    flags += ["--batch-per-worker", work.batch, *span_flags(work.span)]
    if work.data is not None:
        flags += ["--data", work.data, "--loader-workers", loader_workers]
    program = ["-m", f"benchmarks.peer_loops.{module}", *flags]
    return rate(told_marks(finish(one_core_each(RANKS, *program, by=launcher))), work.images)


def best_loader_workers(peer: str, work: Work, quick: bool) -> int:
    """Return the number of DataLoader workers with which ``peer`` is fastest; all load alike."""
    if quick:
        return LOADER_WORKERS[0]
    return max(LOADER_WORKERS, key=lambda count: peer_rate(peer, work, count))


def make_images(work: Work) -> Path:
    """Return a folder with JPEGs of ImageNet's sizes, enough for all steps; made once."""
    from dali_pipeline.benchmarking.images import cache_folder
    from dali_pipeline.benchmarking.jpegs import VERSION, make_jpegs

    # A step more than are made, so that no validation follows; 800 as the pipeline's benchmark.
    images = max(800, work.images * (work.span.last + 1))
    folder = cache_folder() / f"jpegs{VERSION}-{images}"
    make_jpegs(folder, images, len(os.sched_getaffinity(0)))
    return folder


def best(rates: Rates, data: str) -> float:
    """Return our rate by the best peer's: the median over rounds, for the peer that is closest."""
    peers = [name for name in rates if name.endswith(data) and not name.startswith("ours")]
    return min(ratio(rates, f"ours, {data}", name) for name in peers)


def main() -> None:
    """Measure, print, and say which targets were met."""
    options = read_options()
    check_files(options)
    span = Span(options.warm_up, options.steps)
    noise = Work(options.model, options.resolution, options.batch, span, None)
    if options.quick:
        noise = Work("resnet8", 24, 4, Span(2, 4), None)
    rounds = 1 if options.quick else options.rounds

    candidates: dict[str, Callable[[], float]] = {}
    loader_workers = 0
    for data in options.data:
        work = noise
        if data == "jpegs":
            work = noise._replace(data=options.images or make_images(noise))
            loader_workers = best_loader_workers(options.only[-1], work, options.quick)
        candidates[f"ours, {data}"] = partial(our_rate, work)
        for name in options.only:
            candidates[f"{name}, {data}"] = partial(peer_rate, name, work, loader_workers)

    rates = taking_turns(candidates, rounds, uncounted=0)
    figures = {
        f"{data}_vs_{name}": ratio(rates, f"ours, {data}", f"{name}, {data}")
        for data in options.data
        for name in options.only
    }
    figures |= {FIGURES[data]: best(rates, data) for data in options.data}
    targets = [Target(FIGURES[data], TARGETS[data]) for data in options.data]
    title = f"{RANKS} ranks of one core, {noise.model} at {noise.resolution} pixels"
    title += f", n = {noise.batch}"
    show(options, title, rates, figures, targets, loader_workers=loader_workers)


if __name__ == "__main__":
    run_main(main)
