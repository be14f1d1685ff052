"""Training on an index of ten million images, over a few real ones: many names, few bytes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.launching import PROGRAMS, TINY, launch
from support.preparing import jpeg

from dali_pipeline.dataset.index_file import Columns, index_path, load_index, write_index
from dali_pipeline.dataset.mapped import CHECKED_BYTES
from hvd_utils.inspect.compare import differences, newest

pytestmark = pytest.mark.long

MANY, FEW = 10_000_000, 1000
POOL = 24  # real images
STEPS = 6
PROGRAM = str(PROGRAMS / "private_memory.py")


def write_pool(data: Path, split: str, images: int, classes: int = 3) -> None:
    """Write real images behind one another, and an index that has each of them many times."""
    (data / split).mkdir(parents=True)
    encoded = [jpeg(number) for number in range(POOL)]
    (data / split / "pool.tar").write_bytes(b"".join(encoded))
    lengths = np.array([len(one) for one in encoded])
    of_pool = {
        "names": np.array([f"pool/{number:03d}.jpg".encode() for number in range(POOL)]),
        "labels": np.arange(POOL) % classes,
        "heights": np.full(POOL, 30),
        "widths": 40 + np.arange(POOL),
        "file_bytes": lengths,
        "shard": np.zeros(POOL, int),
        "offset": np.cumsum(lengths) - lengths,
    }

    def parts(name: str) -> Iterator[np.ndarray]:
        for start in range(0, images, 1 << 20):
            ids = np.arange(start, min(start + (1 << 20), images), dtype=np.uint64)
            yield of_pool[name][ids * np.uint64(2654435761) % np.uint64(POOL)]

    columns = Columns(images, of_pool["names"].dtype, parts)
    write_index(index_path(data, split), columns, ("ant", "bee", "cat")[:classes], ["pool.tar"])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[int, Path]:
    folders = {}
    for images in (MANY, FEW):
        folders[images] = tmp_path_factory.mktemp(f"{images}")
        write_pool(folders[images], "train", images)
        write_pool(folders[images], "val", POOL)
    yield folders
    shutil.rmtree(folders[MANY])  # half a gigabyte


def train(data: Path, run: Path, ranks: int, steps: int) -> float:
    """Train up to a step; return the most private memory of a rank, MB."""
    options = ("--workers", "3", "--precision", "fp64", "--max-steps", str(steps))
    where = ("--data", str(data), "--output", str(run))
    ended = launch([PROGRAM, *TINY, *options, *where], ranks=ranks)
    assert ended.code == 0, ended.output
    assert f"{MANY if str(MANY) in str(data) else FEW:,} training" in ended.output
    return max(map(int, re.findall(r"private memory: (\d+) MB", ended.output)))


def test_ten_million_images_are_one_trajectory_in_no_more_memory(data, tmp_path):
    """On 2 ranks; broken off, and gone on with on 1 and on 3."""
    assert index_path(data[MANY], "train").stat().st_size > CHECKED_BYTES  # opened unread
    private = train(data[MANY], tmp_path / "whole", 2, STEPS)
    train(data[MANY], tmp_path / "on 1", 2, STEPS // 2)
    shutil.copytree(tmp_path / "on 1", tmp_path / "on 3")
    whole = newest(tmp_path / "whole")
    assert whole["step"] == STEPS
    for ranks in (1, 3):
        run = tmp_path / f"on {ranks}"
        assert newest(run)["step"] == STEPS // 2
        private = max(private, train(data[MANY], run, ranks, STEPS))
        assert max(differences(newest(run), whole).values()) < 1e-10
    # The index's columns are 400 MB, its order 80 MB; none of it is private.
    assert private - train(data[FEW], tmp_path / "few", 2, STEPS) < 50


def test_the_digest_is_known_without_reading_the_names(data):
    train_set = load_index(index_path(data[MANY], "train"), data[MANY] / "train")
    assert train_set.digest() == train_set.source.digest != ""
    assert len(train_set) == MANY
