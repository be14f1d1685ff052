"""Stage a data set: copy it to the nodes' own disks before a run.

mpirun --map-by ppr:1:node python -m dali_pipeline.stage SOURCE DESTINATION    on every node
python -m dali_pipeline.stage SOURCE DESTINATION                               on this machine
"""

from __future__ import annotations

import errno
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from dali_pipeline.dataset.index_file import url_of_shards
from dali_pipeline.staging.files import File
from dali_pipeline.staging.node import Staged, stage
from dali_pipeline.staging.nodes import Nodes
from dali_pipeline.staging.options import read_options
from dali_pipeline.staging.progress import gigabytes
from dali_pipeline.staging.sources import Folder, IndexedTars, ObjectStore, Source
from dali_pipeline.storage.address import is_remote
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.run_main import run_main


def main(arguments: Sequence[str] | None = None) -> None:
    """Stage on every node at once, then print what was done, or which nodes failed."""
    options = read_options(arguments)
    source = _source(options)
    nodes = Nodes()
    done = None
    if nodes.works:
        # Listed once for all nodes: a million files are much to ask of a shared file system.
        wanted = nodes.tell(_list(source, options) if nodes.is_root else None)
        done = _stage(source, wanted, options, nodes)
    results = [result for result in nodes.gather(done) if result]
    failed = [result for result in results if result.error]
    if nodes.is_root:
        for line in summary([result for result in results if not result.error]):
            print(line, flush=True)
    if failed:
        others = f"; also failed: {', '.join(r.host for r in failed[1:])}" if failed[1:] else ""
        raise BadInput(f"{failed[0].host}: {failed[0].error}{others}")
    if nodes.is_root:
        print(f"staged: train with --data {options.destination}", flush=True)


def _source(options: Namespace) -> Source:
    if is_remote(options.source):
        return ObjectStore(options.source)
    kind = IndexedTars if url_of_shards(options.source) else Folder
    return kind(options.source)


def summary(results: Sequence[Staged]) -> list[str]:
    """Return a line for each node, and one that names the slowest of those that copied."""
    lines = []
    copied = [result for result in results if result.copied]
    for result in results:
        if result.copied:
            lines.append(
                f"{result.host}: {result.copied:,} of {result.files:,} files, "
                f"{gigabytes(result.bytes)} in {result.seconds:.1f} s, {_rate(result):,.1f} MB/s"
            )
        else:
            lines.append(
                f"{result.host}: nothing to copy, it has all files ({result.seconds:.1f} s)"
            )
    if len(copied) > 1:
        slowest = min(copied, key=_rate)
        lines.append(f"slowest: {slowest.host}, {_rate(slowest):,.1f} MB/s")
    return lines


def _rate(result: Staged) -> float:
    return result.bytes / 1e6 / max(result.seconds, 1e-3)


def _list(source: Source, options: Namespace) -> list[File]:
    """Return the files of the source, after a look whether its index, if any, fits."""
    if options.pack:
        return []  # the index lists what there is
    try:
        return source.files(options.threads)
    except OSError as error:
        raise BadInput(_reason(error, options.source)) from error


def _stage(source: Source, wanted: Sequence[File], options: Namespace, nodes: Nodes) -> Staged:
    """Stage on this node; a failure is reported later, when the other nodes are done."""
    try:
        return stage(source, wanted, options, nodes.host, shown=nodes.is_root)
    except BadInput as error:
        return Staged(nodes.host, error=str(error))
    except OSError as error:
        return Staged(nodes.host, error=_reason(error, options.destination))


def _reason(error: OSError, folder: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left for {folder}: make room and start again; what is done stays"
    return f"{error.filename or folder}: {error.strerror or error}; what is done stays"


if __name__ == "__main__":
    run_main(main)
