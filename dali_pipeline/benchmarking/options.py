"""The command line of ``python -m dali_pipeline.benchmark``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hvd_utils.cli.argument_types import above_zero, positive
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.parser import Parser
from hvd_utils.cli.ranks import launched_rank

GPU_RATE = 2500  # images/s, about what an A100 trains of ResNet-50 with mixed precision
PICTURES = (".png", ".svg", ".pdf")


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a command line; without one, of this process's.

    Raises BadInput where a file to write has no folder or no known kind.
    """
    parser = Parser(
        prog="python -m dali_pipeline.benchmark",
        description="Measure the input pipeline alone, stage by stage, and its peers on the same "
        "images. Candidates take turns; medians, extremes and ratios are shown.",
        epilog="Under horovodrun, all processes run the whole pipeline at once, and their rates "
        "are added up; peers are measured by one process only.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder with train/ and val/, prepared or not (default: JPEGs made up once, with "
        "ImageNet's sizes)",
    )
    parser.add_argument(
        "--images", type=positive, default=800, metavar="N", help="used (default: %(default)s)"
    )
    parser.add_argument(
        "--batch", type=positive, default=32, metavar="N", help="images (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="that decode (default: one a core)"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=[],
        metavar="NAME,NAME",
        help="rows of the table (default: all); full is always among them",
    )
    parser.add_argument("--rounds", type=positive, default=5, help="(default: %(default)s)")
    parser.add_argument(
        "--seconds", type=above_zero, default=2, help="of one measurement (default: %(default)s)"
    )
    parser.add_argument(
        "--gpu-rate",
        type=positive,
        default=GPU_RATE,
        metavar="RATE",
        help="images/s that one of your GPUs trains (default: %(default)s, an assumption: about "
        "an A100 with ResNet-50 and mixed precision)",
    )
    parser.add_argument(
        "--index",
        action="store_true",
        help="measure instead what an index of ImageNet's size costs: opening it, and an epoch's "
        "order and windows",
    )
    parser.add_argument(
        "--index-images",
        type=lambda text: [positive(part) for part in text.split(",")],
        default=[],
        metavar="N,N",
        help="with --index: how the cost grows, on made-up indexes of so many images each, drawn "
        "with --plot; 100,000,000 take 5 GB of temporary files",
    )
    parser.add_argument(
        "--storage",
        action="store_true",
        help="measure instead what each --shuffle costs in requests and bytes, from a local web "
        "server with 0, 10 and 50 ms of latency",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write medians and ratios")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture")
    options = parser.parse_args(arguments)
    if options.index_images and not options.index:
        parser.error("--index-images needs --index")
    for flag in ("json", "plot"):  # seen now, not after minutes
        file = getattr(options, flag)
        if file and launched_rank() == 0 and not file.absolute().parent.is_dir():
            raise BadInput(f"--{flag} {file}: there is no folder {file.absolute().parent}: make it")
        if file and launched_rank() == 0 and file.is_dir():
            raise BadInput(f"--{flag} {file} is a folder: give a file")
    if options.plot and options.plot.suffix not in PICTURES:
        raise BadInput(f"--plot {options.plot}: its name has to end in {' or '.join(PICTURES)}")
    return options
