"""The paper's Table 1, Table 2 and Figure 1 in miniature: ``python -m benchmarks.study``.

Every run is ``train_imagenet.py`` itself, with logical workers and JPEGs through DALI, on a made-up
image set that is written first. A setting's figure is the paper's: the median error of the last 5
epochs of a run, mean and standard deviation over seeds. Each claim is tested. What was made is kept
in --output, so the study goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.results import check_files
from benchmarks.study.design import design
from benchmarks.study.figures import draw_curves, draw_errors
from benchmarks.study.images import Size, ensure_images
from benchmarks.study.jobs import Job, TimeLeft, make, own_cores, stop
from benchmarks.study.rows import BY_NAME, QUICK, ROWS
from benchmarks.study.tables import as_json, lines
from benchmarks.study.verdicts import CLAIMS, judge
from dali_pipeline.benchmarking.measure import machine, write_json
from hvd_utils.cli.argument_types import positive
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.parser import Parser
from hvd_utils.cli.run_main import run_main
from hvd_utils.config.command_line import read_recipe
from hvd_utils.inspect.outcome import Outcome, read_outcome

SEEDS = 16  # docs/study.md says why
FIRST_SEED = 11  # those below are for trials, by which the miniature was chosen
QUICK_SEEDS = 2  # in about 6 minutes on 2 cores


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line; raise BadInput where they cannot work."""
    parser = Parser(prog="python -m benchmarks.study", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/study"), help="(%(default)s)")
    parser.add_argument(
        "--design", action="store_true", help="print the seeds that each claim needs; make no runs"
    )
    parser.add_argument(
        "--seeds", type=int, help=f"runs a setting ({SEEDS}; with --quick {QUICK_SEEDS})"
    )
    parser.add_argument("--first-seed", type=positive, default=FIRST_SEED, help="(%(default)s)")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--only", metavar="NAME,...", help=f"of {', '.join(BY_NAME)}")
    parser.add_argument(
        "--images", type=int, default=Size().train, help="to train on (%(default)s)"
    )
    parser.add_argument(
        "--epochs", type=positive, help="other than the recipe's: proves that it runs"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="error by minibatch, as .png")
    parser.add_argument("--curves", type=Path, metavar="FILE", help="training curves, as .png")
    options = parser.parse_args(arguments)
    check_files(options)
    if options.seeds is None:
        options.seeds = QUICK_SEEDS if options.quick else SEEDS
    if options.seeds < 1:
        raise BadInput(f"--seeds {options.seeds}: must be at least 1")
    usual = {name for claim in CLAIMS for name in (claim.one, claim.other)}
    names = options.only.split(",") if options.only else QUICK if options.quick else usual
    if unknown := [name for name in names if name not in BY_NAME]:
        raise BadInput(f"--only {unknown[0]}: there are {', '.join(BY_NAME)}")
    options.rows = [row for row in ROWS if row.name in names]
    largest = max(options.rows, key=lambda row: row.workers)
    least = largest.workers * read_recipe("study")["batch_per_worker"]
    if options.images < least:
        raise BadInput(f"--images {options.images}: a minibatch of {largest.name} has {least}")
    options.size = Size(train=options.images, val=options.images // 2)
    if options.size.val < options.size.classes:
        least = 2 * options.size.classes
        raise BadInput(f"--images {options.images}: at least {least}, for an image of each class")
    return options


def plan(options: argparse.Namespace) -> list[Job]:
    """Return all runs: seed by seed, so that whatever is done can be compared."""
    data = options.output / "images-{}-{}-{}".format(*options.size)
    epochs = ("--epochs", str(options.epochs)) if options.epochs else ()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    return [Job(row, seed, options.output, data, epochs) for seed in seeds for row in options.rows]


def make_all(jobs: Sequence[Job]) -> float:
    """Make what is not done yet, telling progress; return the seconds that all runs trained."""
    cores = own_cores()
    left = TimeLeft(len(cores))
    missing = [job for job in jobs if not job.done]
    for job in jobs:
        if job.done:
            left.took(job, job.seconds())
    if len(missing) < len(jobs):
        print(f"{len(jobs) - len(missing)} of {len(jobs)} runs are there already", flush=True)
    for job, seconds in make(missing, cores):
        missing.remove(job)
        left.took(job, seconds)
        error = read_outcome({job.seed: job.output})
        print(
            f"{len(jobs) - len(missing)}/{len(jobs)}  {job.row.name}, seed {job.seed}: {error} %  "
            f"({seconds:.0f} s; about {left.seconds(missing) / 60:.0f} min left)",
            flush=True,
        )
    return sum(job.seconds() for job in jobs)


def outcomes_of(jobs: Sequence[Job]) -> dict[str, Outcome]:
    """Return what the finished runs came to, by setting."""
    runs: dict[str, dict[int, Path]] = {}
    for job in jobs:
        runs.setdefault(job.row.name, {})[job.seed] = job.output
    return {name: read_outcome(by_seed) for name, by_seed in runs.items()}


def main() -> None:
    """Make the runs, then print and write what came out."""
    options = read_options()
    for number in (signal.SIGINT, signal.SIGTERM):  # whoever starts this may have them ignored
        signal.signal(number, stop)
    began = time.monotonic()
    jobs = plan(options)
    for job in jobs:
        job.check()
    if options.design:
        print("\n".join(design(outcomes_of([job for job in jobs if job.done]))))
        return
    ensure_images(jobs[0].data, options.size)
    try:
        trained = make_all(jobs)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", flush=True)
        raise
    outcomes = outcomes_of(jobs)
    verdicts = judge(outcomes)
    print(f"\n{machine()}; {len(jobs)} runs, {(time.monotonic() - began) / 60:.1f} min\n")
    print("\n".join(lines(outcomes, verdicts)))
    write_json(
        options.json,
        {
            **as_json(outcomes, verdicts),
            "minutes_of_this_call": (time.monotonic() - began) / 60,
            "seconds_of_all_runs": trained,
            "images": options.images,
            "seeds": sorted({job.seed for job in jobs}),
        },
    )
    if options.plot:
        draw_errors(options.plot, outcomes, read_recipe("study")["batch_per_worker"])
    if options.curves and {"baseline", "gradual-warmup"} <= outcomes.keys():
        draw_curves(options.curves, outcomes)


if __name__ == "__main__":
    run_main(main)
