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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dali_pipeline.benchmarking.index.sparse import write_sparse_index
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

MINIBATCH = 8192  # images of a step: the paper's kn
SHARE = 32  # of them, those of each of the paper's 256 processes
SHARES = 20  # looked up of each step
NAME = b"made-up/0000.jpg"
KINDS = COLUMNS | PACKED_COLUMNS
BYTES = len(NAME) + sum(np.dtype(kind).itemsize for kind in KINDS.values())  # of an image
DENSE = 10**10  # bytes; of a larger file, only the images that are looked up are written
BLOCK = 4096  # bytes of the disk that one of those takes in each column, at most
PART = 1 << 20
VALUES = {"shard": 0, "offset": 512, "file_bytes": 110_000, "heights": 500, "widths": 500}
CLASSES = 1000


def write_made_up(path: Path, images: int) -> None:
    """Write the index of so many images that do not exist, in one shard; in little memory."""
    classes = min(images, CLASSES)

    def parts(name: str) -> Iterator[np.ndarray]:
        for start in range(0, images, PART):
            yield _column(name, np.arange(start, min(start + PART, images)), classes)

    columns = Columns(images, np.dtype(f"S{len(NAME)}"), parts)
    write_index(path, columns, _names(classes), ["000000.tar"])


def write_sparse(path: Path, images: int, steps: int) -> None:
    """Write the same, but of its images only the first, the last and those of so many steps."""
    ids = np.unique([*images_at(1, 0, steps * MINIBATCH, images)[1], 0, images - 1])
    looked_up = ("labels", "heights", "widths")
    columns: dict[str, Any] = {
        name: _column(name, ids, CLASSES).astype(kind) * (name in looked_up)
        for name, kind in KINDS.items()
    }
    columns["file_bytes"][[0, -1]] = VALUES["file_bytes"]  # which opening looks at
    names = np.zeros(len(ids), f"S{len(NAME)}")
    some = Index("", tuple(_names(CLASSES)), names, shards=("000000.tar",), **columns)
    write_sparse_index(path, some, ids, images)


def _names(classes: int) -> list[str]:
    return [f"class {number}" for number in range(classes)]


def _column(name: str, ids: np.ndarray, classes: int) -> np.ndarray:
    if name == "labels":
        return ids % classes
    return np.full(len(ids), NAME if name == "names" else VALUES[name])


def look_up(index: Index, first: int, count: int) -> float:
    """Look up what so many images in turn need of the index, and return the seconds it took.

    That is their place in the order, their labels and sizes.
    """
    began = time.perf_counter()
    _, ids = images_at(1, first, count, len(index))
    index.labels_of(ids)
    index.sizes(ids)
    return time.perf_counter() - began


def private_megabytes() -> float:
    """Return this process's memory that no file backs, as Linux counts it."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def measure(path: Path, steps: int) -> dict[str, float]:
    """Return what opening an index and looking up in it cost this process, which is a new one."""
    before = private_megabytes()
    began = time.perf_counter()
    index = load_index(path, path.parent)
    opened = time.perf_counter() - began
    # As in training, most are of images that this process has not looked up before.
    shares, minibatches = [], []
    for first in range(0, steps * MINIBATCH, MINIBATCH):
        shares += [look_up(index, first + SHARE * share, SHARE) for share in range(SHARES)]
        minibatches.append(look_up(index, first, MINIBATCH))
    return {
        "open_seconds": opened,
        "private_megabytes": private_megabytes() - before,
        "share_seconds": statistics.median(shares),
        "minibatch_seconds": statistics.median(minibatches),
    }


def report_growth(
    sizes: Sequence[int], rounds: int, file: Path | None, picture: Path | None = None
) -> None:
    """Measure made-up indexes of these lengths, each in a process of its own; print a table.

    Raises BadInput where the disk of temporary files has no room.
    """
    print(f"{machine()}; a step is of {MINIBATCH:,} images, a process's share of {SHARE}")
    titles = ("file MB", "open ms", "private MB", "share ms", "step ms")
    print(f"{'images':>15}" + "".join(f"{title:>12}" for title in titles))
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for images in sizes:
            path = Path(folder) / "train.index.npz"
            sparse = _write(path, images, rounds)
            command = [sys.executable, "-m", __spec__.name, str(path), str(rounds)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            cost = results[images] = json.loads(done.stdout)
            print(
                f"{images:15,}{path.stat().st_size / 1e6:12,.0f}{1e3 * cost['open_seconds']:12.1f}"
                f"{cost['private_megabytes']:12.1f}{1e3 * cost['share_seconds']:12.3f}"
                f"{1e3 * cost['minibatch_seconds']:12.3f}"
                f"{'  (only what is looked up is written)' if sparse else ''}",
                flush=True,
            )
            os.unlink(path)
    write_json(file, {"share": SHARE, "minibatch": MINIBATCH, "images": results})
    if picture:
        plot(picture, results, machine())


def _write(path: Path, images: int, steps: int) -> bool:
    """Write an index, whole if it is small enough; return whether it is not."""
    whole, free = BYTES * images, shutil.disk_usage(path.parent).free
    parts = steps * MINIBATCH * 3 * BLOCK  # in three columns
    sparse = whole > DENSE
    needed = parts if sparse else whole
    remedy = "lower --index-images, or set TMPDIR to another disk"
    if needed > free:
        raise BadInput(
            f"an index of {images:,} images needs {needed:,} bytes, {path.parent} has {free:,}: "
            f"{remedy}"
        )
    try:
        write_sparse(path, images, steps) if sparse else write_made_up(path, images)
    except OSError as error:  # it has no files so long
        raise BadInput(
            f"an index of {images:,} images cannot be in {path.parent} ({error.strerror}): {remedy}"
        ) from error
    return sparse


def plot(path: Path, results: Mapping[int, Mapping[str, float]], title: str) -> None:
    """Draw what the indexes cost against their images, each cost by its limit."""
    import matplotlib

    matplotlib.use("Agg")  # no screen on a cluster
    from matplotlib import pyplot

    panels = {
        "opening, ms": ("open_seconds", 1e3, 100),
        "private memory of a process, MB": ("private_megabytes", 1, 50),
        f"a process's {SHARE} images of a step, ms": ("share_seconds", 1e3, 1),
    }
    figure, axes = pyplot.subplots(1, len(panels), figsize=(10, 2.8), layout="constrained")
    for one, (what, (name, factor, limit)) in zip(axes, panels.items(), strict=True):
        values = [factor * cost[name] for cost in results.values()]
        one.plot([*results], values, "o-")
        one.axhline(limit, color="gray", ls=":", lw=1)
        one.annotate("limit", (min(results), limit), color="gray", fontsize=8, va="bottom")
        one.set(xscale="log", ylim=(0, 1.15 * max(limit, *values)), xlabel="images")
        one.set_title(what, fontsize=9)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    """Measure one index, for ``report_growth``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("steps", type=positive)
    options = parser.parse_args()
    print(json.dumps(measure(options.path, options.steps)))


if __name__ == "__main__":
    main()
