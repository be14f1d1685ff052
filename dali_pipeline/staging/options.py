"""The command line of ``python -m dali_pipeline.stage``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dali_pipeline.dataset.index_file import SPLITS, url_of_shards
from dali_pipeline.dataset.scan import is_unfinished
from dali_pipeline.storage.address import check_address, is_remote
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.parser import Parser

THREADS = 16  # a parallel file system answers many questions at once


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a command line; without one, of this process's.

    Raises BadInput where SOURCE is no data set or DESTINATION lies in it.
    """
    parser = Parser(
        prog="python -m dali_pipeline.stage",
        description="Bring a data set to node-local storage: once on every node of an mpirun, or "
        "on this machine without one.",
        epilog="Interrupted in any way, the same command goes on; run twice, nothing is copied.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="folder with train/ and val/ in class folders or shards, prepared or not; or shards "
        "at s3://BUCKET/PREFIX or https://HOST/PATH",
    )
    parser.add_argument(
        "destination",
        type=Path,
        metavar="DESTINATION",
        help="folder of the node that becomes the same; training's --data then",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="also read every file on both sides and compare checksums; what differs is copied "
        "again (without it, size and time of change tell)",
    )
    parser.add_argument(
        "--pack",
        action="store_true",
        help="write the images of prepared class folders as shards: few large files",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=THREADS,
        metavar="N",
        help="that copy, or processes that pack, on each node (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"--threads {options.threads} is less than 1")
    if options.pack and options.verify:
        parser.error("--verify compares copies: leave it out with --pack")
    remote = is_remote(options.source)
    if remote:
        check_address(options.source, "SOURCE")
        if options.pack:
            parser.error(f"{options.source} has to be packed already: leave out --pack")
    try:
        if not remote:
            options.source = Path(options.source).expanduser().absolute()
        options.destination = options.destination.expanduser().absolute()
    except RuntimeError as error:  # ~nobody: no such user
        parser.error(f"folder {options.source} or {options.destination} cannot be: {error}")
    if not remote:
        _check_folders(options.source, options.destination, options.pack)
    return options


def _check_folders(source: Path, destination: Path, pack: bool) -> None:
    if is_unfinished(source):
        raise BadInput(f"{source} is not whole: its own staging is not finished; start that again")
    url = url_of_shards(source)
    if url and pack:
        raise BadInput(f"{source} is the index of tars at {url}: leave out --pack")
    for split in SPLITS:
        if not (url or (source / split).is_dir()):
            raise BadInput(
                f"{source} has no {split}/: give a folder with train/ and val/ in class folders "
                "or shards; python -m dali_pipeline.prepare makes one"
            )
    try:
        within = destination.resolve().is_relative_to(source.resolve())
    except (OSError, RuntimeError) as error:
        raise BadInput(f"{destination} cannot be a folder: {error}") from error
    if within:
        raise BadInput(f"{destination} lies in {source}: give a folder on the node's own disk")
