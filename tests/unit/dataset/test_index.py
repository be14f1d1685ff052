"""Class folders become an index, and what is wrong with them is named."""

import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.images import write_jpegs
from torchvision.datasets import ImageFolder

from dali_pipeline.dataset.digits import ensure_digits
from dali_pipeline.dataset.index import BadImage
from dali_pipeline.dataset.scan import scan, scan_splits
from hvd_utils.cli.errors import BadInput


def test_the_order_and_labels_are_those_of_image_folder(tiny_data):
    ours, theirs = scan(tiny_data / "train"), ImageFolder(tiny_data / "train")
    assert [(ours.path(i), ours.labels[i]) for i in range(len(ours))] == theirs.samples
    assert list(ours.classes) == theirs.classes


def test_sizes_are_those_stored(tiny_data):
    index = scan(tiny_data / "val")
    ids = np.array([6, 0, 3])
    heights, widths = index.sizes(ids)
    assert [(w, h) for h, w in zip(heights, widths, strict=True)] == [
        Image.open(index.path(i)).size for i in ids
    ]


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(BadInput, match="does not exist: set --data"):
        scan_splits(tmp_path / "none")
    write_jpegs(tmp_path / "train", {"ant": 1, "bee": 1})
    with pytest.raises(BadInput, match="has no val/: .*: move some images of each class from tr"):
        scan_splits(tmp_path)
    (tmp_path / "val").mkdir()
    with pytest.raises(BadInput, match="no class folders in .*val"):
        scan_splits(tmp_path)
    write_jpegs(tmp_path / "val", {"ant": 1})
    assert scan_splits(tmp_path)[1].classes == ("ant",)  # training may have more
    write_jpegs(tmp_path / "val", {"bee": 1, "cat": 1, "dog": 1})
    with pytest.raises(BadInput, match="class cat and 1 more is in .*val but not in .*train"):
        scan_splits(tmp_path)
    (tmp_path / "train" / "cat").mkdir()
    with pytest.raises(BadInput, match="class folder .*cat has no images"):
        scan_splits(tmp_path)


def test_an_unreadable_image_is_named(tmp_path):
    write_jpegs(tmp_path, {"ant": 2})
    index = scan(tmp_path)
    (tmp_path / "ant" / "000.JPEG").write_bytes(b"not a picture")
    (tmp_path / "ant" / "001.JPEG").unlink()
    with pytest.raises(BadInput, match="000.JPEG"):
        index.sizes(np.array([0]))
    with pytest.raises(BadInput, match="001.JPEG: No such file"):
        index.sizes(np.array([1]))
    with pytest.raises(BadInput, match="001.JPEG: No such file"):
        index.read(1)
    assert index.read(0) == b"not a picture"
    with pytest.raises(BadImage) as caught:
        index.read(1)
    again = pickle.loads(pickle.dumps(caught.value))  # as another process raises it
    assert (str(again), again.image, again.reason) == (
        *(str(caught.value), 1, "No such file or directory"),
    )


def test_the_digits_are_written_once_and_whole(tmp_path):
    folder = ensure_digits(tmp_path / "data" / "digits")
    train, val = scan_splits(folder)
    assert (len(train), len(val), train.classes) == (1437, 360, tuple("0123456789"))
    with Image.open(train.path(0)) as image:
        assert (image.format, image.size) == ("JPEG", (32, 32))
    stamp = folder.stat().st_mtime_ns
    ensure_digits(folder)
    assert folder.stat().st_mtime_ns == stamp
    assert [path.name for path in folder.parent.iterdir()] == ["digits"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot write the embedded data set"):
        ensure_digits(tmp_path / "file" / "digits")


def test_a_digest_tells_data_sets_apart(tiny_data, tmp_path):
    """By classes, names and labels; it does not change when the folder is moved or prepared."""
    first = scan(tiny_data / "train")
    elsewhere = tmp_path / "moved"
    shutil.copytree(tiny_data, elsewhere)
    moved = scan(elsewhere / "train")
    sizes = np.ones(len(first), np.int32)
    prepared = replace(moved, heights=sizes, widths=sizes, file_bytes=sizes.astype(np.int64))
    assert first.digest() == moved.digest() == prepared.digest()
    others = [
        scan(tiny_data / "val"),
        replace(first, labels=first.labels[::-1]),
        replace(first, names=first.names[::-1]),
        replace(first, classes=("ant", "bee", "dog")),
        replace(first, note="shorter side 352"),
    ]
    assert len({first.digest(), *(other.digest() for other in others)}) == 1 + len(others)


def test_folders_within_a_class_belong_to_it_as_in_image_folder(tmp_path):
    write_jpegs(tmp_path, {"ant": 2, "ant/b": 1, "ant/a": 2, "ant/a/x": 1, "ant/a-b": 1, "bee": 1})
    (tmp_path / "ant" / "a" / "back").symlink_to(tmp_path / "ant")
    os.mkfifo(tmp_path / "ant" / "pipe.jpg")
    ours = scan(tmp_path)
    (tmp_path / "ant" / "a" / "back").unlink()
    (tmp_path / "ant" / "pipe.jpg").unlink()
    theirs = ImageFolder(tmp_path)
    assert [(ours.path(i), ours.labels[i]) for i in range(len(ours))] == theirs.samples
    assert len(ours) == 8
