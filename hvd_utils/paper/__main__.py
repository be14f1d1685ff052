"""The whole paper: ``python -m hvd_utils.paper plan`` and ``figures RUN [RUN ...]``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hvd_utils.cli.argument_types import positive
from hvd_utils.cli.parser import Parser
from hvd_utils.cli.run_main import run_main


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and do one of the two."""
    parser = Parser(prog="python -m hvd_utils.paper", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    figures = commands.add_parser("figures", help="draw all figures and tables beside runs")
    figures.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folder of a run")
    figures.add_argument("--out", type=Path, default=Path("figures"), metavar="DIR")
    figures.add_argument(
        "--measured", type=Path, metavar="FILE", help="of slurm/scaling.sh, for Figures 7 and 8"
    )
    plan = commands.add_parser(
        "plan",
        help="print all runs: command, GPU hours, expected error",
        epilog="Other options are the planner's (python -m hvd_utils.scaling --help): --step, "
        "--network and so on. Without them it is the paper's cluster.",
    )
    plan.add_argument(
        "--most-gpus", type=positive, default=256, metavar="N", help="of a run (%(default)s)"
    )
    options, rest = parser.parse_known_args(arguments)
    if options.command == "plan":
        from hvd_utils.reproduction.plan import show_plan

        return show_plan(options.most_gpus, rest)
    if rest:
        figures.error(f"unrecognized arguments: {' '.join(rest)}")
    from hvd_utils.reproduction.show import show_figures

    show_figures(options.runs, options.out, options.measured)


if __name__ == "__main__":
    run_main(main)
