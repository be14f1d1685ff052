"""Stage on one node, once for all jobs that ask at the same time."""

from __future__ import annotations

import math
import shutil
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dali_pipeline.dataset.index_file import open_splits
from dali_pipeline.dataset.scan import UNFINISHED
from dali_pipeline.preparation.pack import SHARD_BYTES, check_folder, pack
from dali_pipeline.preparation.shard import QUALITY, Encoding
from dali_pipeline.staging.copying import Copier
from dali_pipeline.staging.files import File, check_room, list_files, missing
from dali_pipeline.staging.progress import Progress
from dali_pipeline.staging.sources import Source
from hvd_utils.cli.errors import BadInput
from hvd_utils.faults.folder_lock import FolderLock, InUse


@dataclass(frozen=True)
class Staged:
    """What was done on a node, or the ``error`` that ended it."""

    host: str
    files: int = 0  # of the whole set
    copied: int = 0  # of them
    bytes: int = 0  # copied
    seconds: float = 0.0
    error: str = ""


def stage(
    source: Source, wanted: Sequence[File], options: Namespace, host: str, shown: bool
) -> Staged:
    """Bring the ``wanted`` files of the source to this node's disk, unless they are there.

    Waits while another job does the same. Until all is done, a mark file makes training refuse the
    folder. Raises BadInput with what cannot work, and OSError.
    """
    marked = options.destination / UNFINISHED
    work = marked.parent
    work.mkdir(parents=True, exist_ok=True)
    lock = _lock(work, host)
    began = time.monotonic()
    try:
        partial = work / "partial"
        shutil.rmtree(partial, ignore_errors=True)  # of a job that was killed
        partial.mkdir()
        if options.pack:
            copied = _pack(options, marked)
        else:
            copier = Copier(source, options.destination, partial, options.threads)
            copied = _copy(copier, wanted, options, marked, shown)
        shutil.rmtree(partial)
        marked.unlink(missing_ok=True)
    finally:
        lock.release()
    size = sum(file.size for file in copied)
    total = len(copied) if options.pack else len(wanted)
    return Staged(host, total, len(copied), size, time.monotonic() - began)


def _lock(folder: Path, host: str) -> FolderLock:
    lock = FolderLock(folder, "DESTINATION")
    try:
        warning = lock.acquire(patience_seconds=0)
    except InUse:
        print(f"{host}: another job stages to {folder.parent}: waiting for it", flush=True)
        warning = lock.acquire(patience_seconds=math.inf)
    if warning:
        print(warning, flush=True)
    return lock


def _copy(
    copier: Copier, wanted: Sequence[File], options: Namespace, marked: Path, shown: bool
) -> list[File]:
    """Copy what is missing, or different: of files without a time, or with --verify; return it."""
    destination = options.destination

    def bring(files: Sequence[File]) -> None:
        marked.touch()
        with Progress("staging", sum(file.size for file in files), shown) as progress:
            copier.copy(files, progress.advance)

    def differing(files: Sequence[File]) -> list[File]:
        with Progress("verifying", sum(file.size for file in files), shown) as progress:
            return copier.different(files, progress.advance)

    copied = missing(wanted, list_files(destination, options.threads), destination)
    check_room(destination, [file.size for file in copied])
    if copied:
        bring(copied)
    unsure = wanted if options.verify else [file for file in wanted if not file.mtime_ns]
    if unsure:
        if shown and not options.verify:
            print(
                f"{len(unsure):,} files of the source have no time of their last change: their "
                "contents are compared, as with --verify",
                flush=True,
            )
        wrong = differing(unsure)
        if wrong:
            bring(wrong)
            still = differing(wrong)
            if still:
                raise BadInput(
                    f"{destination / still[0].name} differs from its source though copied again: "
                    "this disk is not to be trusted"
                )
        copied = sorted({*copied, *wrong})
    return copied


def _pack(options: Namespace, marked: Path) -> list[File]:
    """Write the source's images as shards where they are not there; return what was written."""
    splits = open_splits(options.source)
    if splits[0].packed or not splits[0].prepared:
        raise BadInput(
            f"{options.source} is packed already: leave out --pack"
            if splits[0].packed
            else f"{options.source} has no index, which --pack needs: run python -m "
            f"dali_pipeline.prepare {options.source}, or leave out --pack"
        )
    check_folder(options.destination, options.source)
    before = _shards(options)
    header = 3 * 512 + 511  # bytes of a tar beside an image: two names, a label, and padding
    needed = sum(int(split.file_bytes.sum()) + header * len(split) for split in splits)
    check_room(options.destination, [max(0, needed - sum(file.size for file in before))])
    marked.touch()
    pack(splits, options.destination, Encoding(None, QUALITY), SHARD_BYTES, options.threads)
    return sorted(set(_shards(options)) - set(before))


def _shards(options: Namespace) -> list[File]:
    return [f for f in list_files(options.destination, options.threads) if "/" in f.name]
