"""The command line of ``python -m dali_pipeline.prepare``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from dali_pipeline.preparation.devkit import DEVKIT
from dali_pipeline.preparation.imagenet_tars import TRAIN_TAR, VAL_TAR
from dali_pipeline.preparation.pack import SHARD_BYTES
from dali_pipeline.preparation.shard import QUALITY
from dali_pipeline.storage.address import is_remote
from hvd_utils.cli.argument_types import positive
from hvd_utils.cli.parser import Parser

ORIGINALS = "originals"  # folder of what --repair replaced


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a command line; without one, of this process's."""
    parser = Parser(
        prog="python -m dali_pipeline.prepare",
        description="Prepare a data set for training: class folders, every image decoded once, "
        "and an index that saves each run the walk of the folders.",
        epilog="Every step goes on where it was interrupted; run twice, nothing changes.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "source",
        type=Path,
        nargs="?",
        help=f"folder with {TRAIN_TAR}, {VAL_TAR} and {DEVKIT}, or with train/ and val/ in class "
        "folders; a flat val/ of ImageNet is sorted by the development kit beside it",
    )
    parser.add_argument(
        "dest",
        type=Path,
        nargs="?",
        help="folder that gets train/CLASS/ and val/CLASS/; class folders of another file system "
        "are copied, of the same linked (default: SOURCE; class folders stay as they are)",
    )
    parser.add_argument(
        "--processes",
        type=positive,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="processes that decode (default: one a core, here %(default)s)",
    )
    parser.add_argument(
        "--any-count",
        action="store_true",
        help="accept wnid classes or 1,000 classes with other numbers of images than ImageNet's",
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="write CMYK images and other formats under a JPEG's name again as RGB JPEGs of "
        f"quality 100; the originals go to DEST/{ORIGINALS}/",
    )
    parser.add_argument(
        "--drop-bad", action="store_true", help="leave what cannot be decoded out of the index"
    )
    parser.add_argument(
        "--from-shards",
        nargs="+",
        metavar="DIR|URL",
        help="index DIR/train/*.tar and DIR/val/*.tar of WebDataset's form where they are, instead "
        "of a SOURCE; labels come from .cls or .json. Of tars elsewhere: s3://BUCKET/PREFIX with "
        "train/ and val/, or two URLs, training's and validation's, with braces as in "
        "https://HOST/PATH/{00000..01023}.tar",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder that gets the index of tars at URLs; training's --data then",
    )
    parser.add_argument(
        "--label-key",
        default="label",
        metavar="NAME",
        help="field of a shard's .json that holds the label (default: %(default)s)",
    )
    packing = parser.add_argument_group(
        "packing",
        "Few large files instead of many small ones, as plain tar in the form of WebDataset.",
    )
    packing.add_argument(
        "--pack", type=Path, metavar="DIR", help="also write the images as shards into DIR"
    )
    packing.add_argument(
        "--shard-bytes",
        type=positive,
        default=SHARD_BYTES,
        metavar="N",
        help="images of a shard, bytes before any encoding anew (default: %(default)s)",
    )
    packing.add_argument(
        "--max-side",
        type=positive,
        metavar="PIXELS",
        help="encode images anew whose longer side is more, reduced to this; "
        "a departure from the paper, which the index and every run's log say",
    )
    packing.add_argument(
        "--quality",
        type=_quality,
        metavar="Q",
        help=f"of the JPEGs of --max-side, 1 to 100 (default: {QUALITY})",
    )
    options = parser.parse_args(arguments)
    if (options.source is None) == (options.from_shards is None):
        parser.error("give either SOURCE or --from-shards DIR")
    if options.from_shards and (options.pack or options.repair or options.any_count):
        parser.error("--from-shards leaves shards as they are: no --pack, --repair, --any-count")
    _check_shards(parser, options)
    if options.quality and not options.max_side:
        parser.error("--quality needs --max-side: other images are packed as they are")
    if options.max_side and not options.pack:
        parser.error("--max-side needs --pack DIR: class folders are left as they are")
    options.quality = options.quality or QUALITY
    return options


def _check_shards(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    given = options.from_shards or []
    remote = [*map(is_remote, given)]
    if len(given) > (2 if all(remote) else 1):
        parser.error("--from-shards takes one folder, or a URL, or two: training's, validation's")
    if any(remote) and not options.output:
        parser.error("--from-shards URL needs --output DIR, a folder for the index")
    if options.output and not any(remote):
        parser.error("--output is for --from-shards URL: else the index lies beside the images")


def _quality(text: str) -> int:
    if not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not from 1 to 100")
    return int(text)
