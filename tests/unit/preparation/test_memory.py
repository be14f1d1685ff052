"""A data set of any size is prepared in little memory, and its index stays what it was."""

import gc
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.images import write_jpegs
from support.preparing import jpeg, run

from dali_pipeline.dataset import mapped
from dali_pipeline.dataset.index_file import index_path, load_index, save_index
from dali_pipeline.dataset.scan import scan_splits
from dali_pipeline.preparation import verify
from dali_pipeline.preparation.image_check import GRAYSCALE, UNDECODABLE, ImageCheck

OF_A_CLASS = 100  # images: the names of one class are in memory at a time
BYTES = 40  # of memory for each further image, at most: its name alone has more
COLUMNS = ("names", "labels", "heights", "widths", "file_bytes")


def many(folder: Path, classes: int) -> Path:
    """Write class folders of images that are names of one file."""
    folder.mkdir()
    (folder / "image").write_bytes(jpeg(0))
    for split, count in (("train", classes), ("val", 1)):
        for number in range(count):
            images = folder / split / f"class {number:04d}"
            images.mkdir(parents=True)
            for image in range(OF_A_CLASS):
                os.link(folder / "image", images / f"a rather long name {image:06d}.jpg")
    return folder


def peak(data: Path, *options: object) -> int:
    """Return the most bytes that preparing takes at a time."""
    tracemalloc.start()
    try:
        run(data, *options)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_images(tmp_path, monkeypatch):
    """Mapped files are not counted: the kernel takes their memory back where it needs some."""

    def looked_at(path):
        found = {GRAYSCALE: "one channel"} | ({UNDECODABLE: "cut off"} if "7.jpg" in path else {})
        return ImageCheck(os.stat(path).st_size, 0, 30, 40, found)

    monkeypatch.setattr(mapped, "CHUNK", 64)
    monkeypatch.setattr(verify, "check_image", looked_at)
    small, large = many(tmp_path / "small", 2), many(tmp_path / "large", 14)
    options = ("--drop-bad", "--pack", tmp_path / "packed", "--shard-bytes", 10**5)
    gc.disable()  # a collection frees what Python keeps of its own, which would then be counted
    try:
        run(large, *options)
        sizes = [peak(data, *options) for data in (small, large)]
    finally:
        gc.enable()
    assert len(load_index(index_path(tmp_path / "packed", "train"), tmp_path)) == 14 * 90
    assert sizes[1] - sizes[0] < BYTES * 12 * OF_A_CLASS


@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_an_index_written_in_parts_has_the_bytes_of_one_written_at_once(
    tmp_path, monkeypatch, chunk
):
    data, packed, whole = (tmp_path / name for name in ("data", "packed", "whole.npz"))
    write_jpegs(data / "train", {"ant": 5, "bee": 7, "cat": 2}, seed=1)
    write_jpegs(data / "val", {"ant": 2, "bee": 1}, seed=2)
    (data / "train/bee/a much longer name.jpeg").write_bytes(jpeg(1))
    (data / "train/ant/more").mkdir()
    (data / "train/ant/more/b.jpg").write_bytes(jpeg(2))
    splits = scan_splits(data)
    bad = data / "train/bee/001.JPEG"
    expected = []
    for index in splits:
        sizes = index.sizes(np.arange(len(index)))
        stored = [os.path.getsize(index.path(image)) for image in range(len(index))]
        columns = (index.names, index.labels, *sizes, np.array(stored))
        keep = [index.path(image) != str(bad) for image in range(len(index))]
        kept = {name: column[keep] for name, column in zip(COLUMNS, columns, strict=True)}
        note = "" if all(keep) else "1 undecodable images left out"
        expected.append(replace(index, **kept, note=note))
    bad.write_bytes(b"no image")
    monkeypatch.setattr(mapped, "CHUNK", chunk)
    run(data, "--drop-bad", "--pack", packed, "--shard-bytes", 3000)
    monkeypatch.setattr(mapped, "CHUNK", 1 << 20)
    for split, index in zip(("train", "val"), expected, strict=True):
        save_index(whole, index)
        assert index_path(data, split).read_bytes() == whole.read_bytes()
        with np.load(index_path(packed, split)) as stored:
            of_shards = {name: stored[name] for name in ("shard", "offset")}
            shards = tuple(stored["shards"].astype(str).tolist())
        assert split == "val" or len(shards) > 1
        save_index(whole, replace(index, shards=shards, **of_shards))
        assert index_path(packed, split).read_bytes() == whole.read_bytes()
