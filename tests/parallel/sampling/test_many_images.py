"""Training on an index of a billion images, over a few real ones: many entries, few bytes."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
from support.launching import PROGRAMS, TINY, launch
from support.preparing import jpeg

from dali_pipeline.benchmarking.index.sparse import write_sparse_index
from dali_pipeline.dataset.index import Index
from dali_pipeline.dataset.index_file import index_path, load_index, save_index
from dali_pipeline.dataset.mapped import CHECKED_BYTES
from dali_pipeline.sampling.order import images_at
from hvd_utils.cli.errors import BadInput
from hvd_utils.inspect.compare import differences, newest

pytestmark = pytest.mark.long

MANY, FEW = 10**9, 1000
POOL = 24  # real images
WORKERS, BATCH = 24, 4  # of TINY
STEPS = 6
SEED = 1  # the job's own
PROGRAM = str(PROGRAMS / "private_memory.py")


def pool_index(folder: Path, ids: np.ndarray) -> Index:
    """Write real images behind one another; return an index that has one of them for each id."""
    folder.mkdir(parents=True, exist_ok=True)
    encoded = [jpeg(number) for number in range(POOL)]
    (folder / "pool.tar").write_bytes(b"".join(encoded))
    lengths = np.array([len(one) for one in encoded])
    number = ids * 2654435761 % POOL
    return Index(
        str(folder),
        ("ant", "bee", "cat"),
        np.array([f"pool/{one:010d}.jpg" for one in ids], dtype=bytes),
        (number % 3).astype(np.int32),
        heights=np.full(len(ids), 30, np.int32),
        widths=(40 + number).astype(np.int32),
        file_bytes=lengths[number],
        shards=("pool.tar",),
        shard=np.zeros(len(ids), np.int32),
        offset=(np.cumsum(lengths) - lengths)[number],
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[int, Path]:
    """Data sets by their number of images; of the large one, only what is trained on is written."""
    folders = {images: tmp_path_factory.mktemp(f"{images}") for images in (MANY, FEW)}
    for images, folder in folders.items():
        save_index(index_path(folder, "val"), pool_index(folder / "val", np.arange(POOL)))
        path = index_path(folder, "train")
        if images == FEW:
            save_index(path, pool_index(folder / "train", np.arange(images)))
        else:
            ids = images_at(SEED, 0, STEPS * WORKERS * BATCH, images)[1]
            ids = np.unique([*ids, 0, images - 1])
            write_sparse_index(path, pool_index(folder / "train", ids), ids, images)
    return folders


def train(data: Path, run: Path, ranks: int, killed_in: int = 0) -> list[int]:
    """Train up to the last step, or until killed; return the private memory of the ranks, MB."""
    options = ("--workers", str(WORKERS), "--precision", "fp64", "--max-steps", str(STEPS))
    where = ("--data", str(data), "--output", str(run), "--checkpoint-every", "1")
    ended = launch(
        [PROGRAM, *TINY, *options, *where], ranks=ranks, timeout=300, KILLED_IN=str(killed_in)
    )
    assert (ended.code != 0) == bool(killed_in), ended.output
    assert f"{MANY if str(MANY) in str(data) else FEW:,} training" in ended.output
    return [int(found) for found in re.findall(r"private memory: (\d+) MB", ended.output)]


def test_a_billion_images_are_one_trajectory_in_no_more_memory(data, tmp_path):
    """On one rank; and killed on 8 at a random step, and gone on with on 3."""
    train(data[MANY], tmp_path / "whole", 1)
    killed_in = random.Random(24).randint(3, STEPS - 1)
    assert train(data[MANY], tmp_path / "killed", 8, killed_in) == []
    assert 0 < newest(tmp_path / "killed")["step"] < killed_in
    private = train(data[MANY], tmp_path / "killed", 3)
    ends = [newest(tmp_path / run) for run in ("whole", "killed")]
    assert [end["step"] for end in ends] == [STEPS, STEPS]
    assert max(differences(*ends).values()) < 1e-10
    # The index is 48 GB long, an order of its images 8 GB; none of it is private.
    assert len(private) == 3
    assert max(private) - max(train(data[FEW], tmp_path / "few", 3)) < 50


def test_a_billion_images_are_opened_unread(data):
    path = index_path(data[MANY], "train")
    stat = path.stat()
    assert stat.st_size > 40 * MANY > CHECKED_BYTES
    assert 512 * stat.st_blocks < 50e6  # but for the file systems that have no holes
    index = load_index(path, data[MANY] / "train")
    assert len(index) == MANY
    assert index.digest() == index.source.digest != ""
    _, ids = images_at(SEED, 0, STEPS * WORKERS * BATCH, MANY)
    assert index.read(int(ids[7])) == jpeg(int(ids[7]) * 2654435761 % POOL)
    assert len(set(ids // (MANY // 20))) == 20  # from all over the set
    with pytest.raises(BadInput, match="damaged"):
        index.sizes(np.arange(1, 100))  # which no step takes
