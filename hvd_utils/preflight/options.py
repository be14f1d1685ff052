"""The command line of ``python -m hvd_utils.preflight``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dali_pipeline.loading.decoding.verdict import WAYS
from hvd_utils.cli.argument_types import above_zero, positive
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.parser import Parser
from hvd_utils.cli.ranks import launched_rank
from hvd_utils.config.command_line import load_settings
from hvd_utils.config.settings import DIGITS, Settings

CHECKS = (
    "software",
    "node",
    "gpu",
    "output",
    "horovod",
    "data",
    "decode",
    "clock",
    "allreduce",
    "weights",
    "trackers",
    "compute",
    "input",
    "estimate",
)
NEED_A_CHILD = frozenset({"horovod", "data", "decode", "weights", "compute", "input", "estimate"})
PASSED_ON = (  # as of the job
    *("data", "workers", "recipe", "decode", "cache", "cache_size", "model", "init", "track"),
)
TIME_LIMIT, QUICK_TIME_LIMIT = 120, 30  # seconds


def read_options(
    arguments: Sequence[str] | None, environment: Mapping[str, str] = os.environ
) -> tuple[argparse.Namespace, Settings]:
    """Return the options of a command line, and the settings that a job with them would have.

    Raises BadInput naming the option that cannot work.
    """
    options = _parser().parse_args(arguments)
    options.time_limit = options.time_limit or (QUICK_TIME_LIMIT if options.quick else TIME_LIMIT)
    options.checks = tuple(
        name
        for name in CHECKS
        if name not in options.skip and (not options.only or name in options.only)
    )
    if not options.checks:
        raise BadInput("--only and --skip leave no check")
    if options.json and launched_rank() == 0 and not options.json.absolute().parent.is_dir():
        folder = options.json.absolute().parent
        raise BadInput(f"--json {options.json}: there is no folder {folder}: make it")
    if options.json and launched_rank() == 0 and options.json.is_dir():
        raise BadInput(f"--json {options.json} is a folder: give a file")
    return options, _settings(options, environment)


def _settings(options: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    given = {name: getattr(options, name) for name in PASSED_ON}
    if options.recipe is None and options.data == DIGITS:
        given["recipe"] = "demo"
    flags = [
        part
        for name, value in given.items()
        if value
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    settings = load_settings(flags, environment)
    if settings.data is None and "data" in options.checks:
        raise BadInput("no images to check: set --data DIR or IMAGENET_DIR, or --skip data,input")
    return settings


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m hvd_utils.preflight",
        description="Check on all ranks what would go wrong in a job, and print one table. "
        "Exit code 0 unless something failed, then 2.",
        epilog="Launch it as the job: horovodrun or mpirun with as many ranks. "
        f"Checks: {', '.join(CHECKS)}.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--data",
        metavar="DIR|URL",
        help=f"as of the job: a folder, or '{DIGITS}' (or IMAGENET_DIR)",
    )
    add("--recipe", metavar="NAME", help="as of the job (default: paper with --data, else demo)")
    add("--workers", type=positive, metavar="N", help="k, as of the job (default: ranks)")
    add("--cache", metavar="DIR", help="as of the job, where --data is s3:// or https://")
    add("--cache-size", metavar="SIZE", help="as of the job, likewise: the index has to fit")
    add("--decode", choices=(*WAYS, "auto"), help="as of the job: probed unless cpu")
    add("--model", metavar="NAME", help="as of the job, which --init has to fit")
    add(
        "--init",
        metavar="WEIGHTS",
        help="as of the job: can it be read, and does it fit the model?",
    )
    add("--track", metavar="NAME,NAME", help="as of the job: can they be used on rank 0's host?")
    add("--output", type=Path, metavar="DIR", help="as of the job: is it shared and writable?")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add("--quick", action="store_true", help="all checks, measured shorter: 64 MB at most")
    add("--only", type=_names, default=(), metavar="CHECK,CHECK", help="just these")
    add("--skip", type=_names, default=(), metavar="CHECK,CHECK", help="all but these")
    add(
        "--time-limit",
        type=positive,
        metavar="SECONDS",
        help=f"of everything (default: {TIME_LIMIT}, with --quick {QUICK_TIME_LIMIT})",
    )
    add(
        "--expected-gbit",
        type=above_zero,
        metavar="GBIT",
        help="speed of a node's link, Gbit/s (default: what its network devices say)",
    )
    add(
        "--gpu-rate",
        type=above_zero,
        metavar="RATE",
        help="images/s that one rank trains (default: measured)",
    )
    add("--json", type=Path, metavar="FILE", help="write verdicts and figures")
    return parser


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in CHECKS:
            raise argparse.ArgumentTypeError(f"no check {name}: {', '.join(CHECKS)} are")
    return names
