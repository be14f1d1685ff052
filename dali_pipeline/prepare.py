"""Prepare a data set: from ImageNet's tar files or class folders to a verified one with an index.

python -m dali_pipeline.prepare SOURCE DEST    extract, check, decode once, index
python -m dali_pipeline.prepare FOLDER         the same for class folders, where they are
python -m dali_pipeline.prepare --from-shards DIR    index WebDataset's tars, where they are
python -m dali_pipeline.prepare --from-shards TRAIN VAL --output DIR    the same of tars at URLs
"""

from __future__ import annotations

import argparse
import errno
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dali_pipeline.dataset.index import Index
from dali_pipeline.dataset.index_file import SPLITS, Columns, index_path, load_index, write_index
from dali_pipeline.dataset.scan import scan_splits
from dali_pipeline.preparation.class_folders import arrange_folders, check_source
from dali_pipeline.preparation.counts import count_classes, differences
from dali_pipeline.preparation.devkit import DEVKIT, read_devkit
from dali_pipeline.preparation.image_check import UNDECODABLE
from dali_pipeline.preparation.on_disk import scan_to_disk
from dali_pipeline.preparation.options import ORIGINALS, read_options
from dali_pipeline.preparation.pack import check_folder, pack
from dali_pipeline.preparation.repair import repair, repairable
from dali_pipeline.preparation.report import REPORT, summary, write_report
from dali_pipeline.preparation.shard import Encoding
from dali_pipeline.preparation.tars.index_tars import index_tars
from dali_pipeline.preparation.verify import Verified, verify
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.progress_bar import tqdm
from hvd_utils.cli.run_main import run_main
from hvd_utils.faults.folder_lock import locked_folder

WORK = ".prepare"  # folder of what is unfinished or remembered
SHOWN = 20  # lines of differences


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare a data set, from top to bottom; every step continues where it was interrupted."""
    options = read_options(arguments)
    if options.from_shards:
        _from_shards(options)
        return
    try:
        source, dest = options.source.expanduser(), (options.dest or options.source).expanduser()
        options.pack = options.pack and options.pack.expanduser()
    except RuntimeError as error:  # ~nobody: no such user
        raise BadInput(f"folder {options.source} or its copy cannot be: {error}") from error
    if options.pack:
        check_folder(options.pack, dest)
    try:
        check_source(source)
        with locked_folder(dest / WORK, "DEST"):
            _prepare(source, dest, options)
    except OSError as error:
        raise _cannot_write(error, dest) from error


def _prepare(source: Path, dest: Path, options: argparse.Namespace) -> None:
    arrange_folders(source, dest, dest / WORK / "partial")
    train, val = scan_splits(dest, lambda folder: scan_to_disk(folder, dest / WORK))
    _check_counts(train, val, source / DEVKIT, options.any_count)

    splits = verify((train, val), dest / WORK / "verified", options.processes)
    if options.repair and _repair(splits, dest):
        splits = verify((train, val), dest / WORK / "verified", options.processes)
    _report(splits, dest / REPORT)
    for verified in splits:
        _check_bad(verified, dest / REPORT, options.drop_bad)

    for split, verified in zip(SPLITS, splits, strict=True):
        _write_index(index_path(dest, split), verified)
    print(f"indexed: train with --data {dest}")
    if options.pack:
        _pack([load_index(index_path(dest, split), dest / split) for split in SPLITS], options)


def _from_shards(options: argparse.Namespace) -> None:
    try:
        index_tars(options)
    except RuntimeError as error:  # ~nobody: no such user
        raise BadInput(f"folder of --from-shards or --output cannot be: {error}") from error
    except OSError as error:
        raise _cannot_write(error, Path(options.output or options.from_shards[0])) from error


def _check_counts(train: Index, val: Index, devkit: Path, any_count: bool) -> None:
    found = differences(train, val, read_devkit(devkit) if devkit.exists() else None)
    for line in found[:SHOWN]:
        print(line)
    if len(found) > SHOWN:
        print(f"... and {len(found) - SHOWN:,} more differences")
    if found and not any_count:
        raise BadInput(
            f"not ImageNet as it should be: {found[0]}; complete it, or accept it with --any-count"
        )


def _repair(splits: Sequence[Verified], dest: Path) -> int:
    """Repair what can be; return how many images that were."""
    count = sum(1 for split in splits for _ in repairable(split))
    images = ((split.index, image) for split in splits for image in repairable(split))
    for index, image in tqdm(images, total=count, unit="image", desc="repairing", disable=None):
        path = Path(index.path(image))
        repair(path, dest / ORIGINALS / path.relative_to(dest), dest / WORK / "repaired.jpg")
    if count:
        print(f"repaired {count:,} images; the originals are in {dest / ORIGINALS}")
    return count


def _report(splits: Sequence[Verified], path: Path) -> None:
    write_report(path, splits)
    for split in splits:
        print("\n".join(summary(split)))
    print(f"every finding: {path}")


def _check_bad(split: Verified, report: Path, drop: bool) -> None:
    """Raise BadInput for undecodable images, unless they may be left out of their classes."""
    index = split.index
    if UNDECODABLE not in split.kinds:
        return
    bad = split.kinds[UNDECODABLE]
    if not drop:
        raise BadInput(
            f"{bad.images:,} images cannot be decoded, first {index.path(bad.first)}: see {report};"
            " replace them, or leave them out with --drop-bad"
        )
    counts = count_classes(split.without(UNDECODABLE, "labels"), len(index.classes))
    if not counts.all():
        name = index.classes[int(np.argmin(counts))]
        raise BadInput(f"no image of class {name} in {index.root} can be decoded: see {report}")


def _write_index(path: Path, split: Verified) -> None:
    """Write the index of a split, without undecodable images."""
    index, bad = split.index, split.kinds.get(UNDECODABLE)
    columns = Columns(
        len(index) - (bad.images if bad else 0),
        index.names.dtype,
        lambda column: split.without(UNDECODABLE, column),
    )
    note = f"{bad.images:,} undecodable images left out" if bad else ""
    write_index(path, columns, index.classes, (), note)


def _pack(indexes: Sequence[Index], options: argparse.Namespace) -> None:
    folder = options.pack
    encoding = Encoding(options.max_side, options.quality)
    try:
        pack(indexes, folder, encoding, options.shard_bytes, options.processes)
    except OSError as error:
        raise _cannot_write(error, folder) from error
    print(f"packed: train with --data {folder}")


def _cannot_write(error: OSError, folder: Path) -> BadInput:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BadInput(
            f"no space left for {folder}: make room and start again; what is done stays"
        )
    return BadInput(f"{error.filename or folder}: {error.strerror or error}; what is done stays")


if __name__ == "__main__":
    run_main(main)
