"""How the cost of an index grows with its images: opening, private memory, a step's look-up."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dali_pipeline.benchmarking.measure import machine, write_json
from dali_pipeline.dataset.index import Index
from dali_pipeline.dataset.index_file import (
    COLUMNS,
    PACKED_COLUMNS,
    Columns,
    load_index,
    write_index,
)
from dali_pipeline.sampling.order import images_at
from hvd_utils.cli.argument_types import positive
from hvd_utils.cli.errors import BadInput

MINIBATCH = 8192  # images looked up in a step: the paper's kn, by a process alone
NAME = b"made-up/0000.jpg"
KINDS = COLUMNS | PACKED_COLUMNS
BYTES = len(NAME) + sum(np.dtype(kind).itemsize for kind in KINDS.values())  # of an image
PART = 1 << 20


def write_made_up(path: Path, images: int, classes: int, sides: int = 500) -> None:
    """Write the index of so many images that do not exist, in one shard; in little memory."""

    def parts(name: str) -> Iterator[np.ndarray]:
        for start in range(0, images, PART):
            ids = np.arange(start, min(start + PART, images))
            if name == "names":
                yield np.full(len(ids), NAME)
            elif name == "labels":
                yield ids % classes
            else:
                value = {"shard": 0, "offset": 512, "file_bytes": 110_000}.get(name, sides)
                yield np.full(len(ids), value)

    columns = Columns(images, np.dtype(f"S{len(NAME)}"), parts)
    write_index(path, columns, [f"class {c}" for c in range(classes)], ["000000.tar"])


def look_up(index: Index, step: int) -> None:
    """Look up what a step needs of the index: order, labels and sizes of a minibatch."""
    _, ids = images_at(1, step * MINIBATCH, MINIBATCH, len(index))
    index.labels_of(ids)
    index.sizes(ids)


def private_megabytes() -> float:
    """Return this process's memory that no file backs, as Linux counts it."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def measure(path: Path, rounds: int) -> dict[str, float]:
    """Return what opening an index and looking up in it cost this process, which is a new one."""
    before = private_megabytes()
    began = time.perf_counter()
    index = load_index(path, path.parent)
    opened = time.perf_counter() - began
    seconds = []
    for step in range(10 * rounds):
        began = time.perf_counter()
        look_up(index, step)
        seconds.append(time.perf_counter() - began)
    return {
        "open_seconds": opened,
        "private_megabytes": private_megabytes() - before,
        "lookup_seconds": statistics.median(seconds),
    }


def report_growth(sizes: Sequence[int], rounds: int, file: Path | None) -> None:
    """Measure made-up indexes of these lengths, each in a process of its own; print a table.

    Raises BadInput where the disk of temporary files has no room.
    """
    print(f"{machine()}; a look-up is of {MINIBATCH:,} images")
    print(f"{'images':>15} {'file MB':>9} {'open s':>8} {'private MB':>11} {'look-up ms':>11}")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for images in sizes:
            needed, free = BYTES * images, shutil.disk_usage(folder).free
            if needed > free:
                raise BadInput(
                    f"an index of {images:,} images needs {needed:,} bytes, {folder} has {free:,}: "
                    "lower --index-images, or set TMPDIR to another disk"
                )
            path = Path(folder) / "train.index.npz"
            write_made_up(path, images, min(images, 1000))
            command = [sys.executable, "-m", __spec__.name, str(path), str(rounds)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            cost = results[images] = json.loads(done.stdout)
            print(
                f"{images:15,} {path.stat().st_size / 1e6:9,.0f} {cost['open_seconds']:8.3f} "
                f"{cost['private_megabytes']:11.1f} {1e3 * cost['lookup_seconds']:11.3f}",
                flush=True,
            )
            os.unlink(path)
    write_json(file, {"minibatch": MINIBATCH, "images": results})


def main() -> None:
    """Measure one index, for ``report_growth``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("rounds", type=positive)
    options = parser.parse_args()
    print(json.dumps(measure(options.path, options.rounds)))


if __name__ == "__main__":
    main()
