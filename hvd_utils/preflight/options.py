"""The command line of ``python -m hvd_utils.preflight``: its own options and the job's settings."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hvd_utils.cli.argument_types import above_zero, positive
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import launched_rank
from hvd_utils.config.command_line import settings_of
from hvd_utils.config.flags import SettingsParser, add_settings
from hvd_utils.config.settings import Settings
from hvd_utils.config.unknown_setting import unknown_flag

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
TIME_LIMIT = 120  # seconds: with --quick too, where a file system may be cold


def read_options(
    arguments: Sequence[str] | None, environment: Mapping[str, str] = os.environ
) -> tuple[argparse.Namespace, Settings]:
    """Return the options of a command line, and the settings that a job with them would have.

    Raises BadInput naming the option that cannot work.
    """
    parser = _parser()
    parsed, unknown = parser.parse_known_args(arguments)
    given = vars(parsed)
    flags = {name: given.pop(name) for name in list(given) if name in Settings.model_fields}
    options = argparse.Namespace(**given)
    if unknown and not options.ignore_unknown:
        raise BadInput(unknown_flag(unknown, sys.argv[1:] if arguments is None else arguments))
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
    settings = settings_of(flags, environment)
    if settings.data is None and "data" in options.checks:
        raise BadInput("no images to check: set --data DIR or IMAGENET_DIR, or --skip data,input")
    return options, settings


def _parser() -> argparse.ArgumentParser:
    parser = SettingsParser(
        prog="python -m hvd_utils.preflight",
        description="Check on all ranks what would go wrong in a job, and print one table. "
        "Exit code 1 where only machines or time failed, 2 where another start would fail too.",
        epilog="Launch it as the job, by horovodrun or mpirun with as many ranks, and with all of "
        "the job's settings: what is checked and measured is what it would do. "
        f"Checks: {', '.join(CHECKS)}.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="all checks, measured shorter: 64 MB at most")
    add("--only", type=_names, default=(), metavar="CHECK,CHECK", help="just these")
    add("--skip", type=_names, default=(), metavar="CHECK,CHECK", help="all but these")
    add(
        "--time-limit",
        type=positive,
        metavar="SECONDS",
        default=TIME_LIMIT,
        help=f"of everything (default: {TIME_LIMIT})",
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
    text = "of a job by another program: leave it the arguments that are no settings"
    add("--ignore-unknown", action="store_true", help=text)
    add_settings(parser)
    return parser


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in CHECKS:
            raise argparse.ArgumentTypeError(f"no check {name}: {', '.join(CHECKS)} are")
    return names
