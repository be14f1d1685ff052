"""A prepared index says what a walk would, and is refused where it does not fit its folder."""

import errno
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.images import write_jpegs

from dali_pipeline.dataset.index import Index
from dali_pipeline.dataset.index_file import (
    index_path,
    load_index,
    open_splits,
    save_index,
    url_of_shards,
)
from dali_pipeline.dataset.scan import scan_splits
from dali_pipeline.preparation.on_disk import scan_to_disk
from hvd_utils.cli.errors import BadInput


def known(index: Index) -> Index:
    """Return a scanned index with what only a prepared one knows."""
    heights, widths = index.sizes(np.arange(len(index)))
    file_bytes = [os.path.getsize(index.path(image)) for image in range(len(index))]
    return replace(index, heights=heights, widths=widths, file_bytes=np.array(file_bytes))


def content(index: Index) -> tuple:
    """Return all that an index says."""
    columns = ("names", "labels", "heights", "widths", "file_bytes")
    of_images = (getattr(index, name).tolist() for name in columns)
    return (*of_images, index.classes, index.shards, index.note, index.digest())


@pytest.fixture
def data(tmp_path) -> Path:
    """Two splits with their prepared index."""
    write_jpegs(tmp_path / "train", {"ant": 3, "bee": 2}, seed=1)
    write_jpegs(tmp_path / "val", {"ant": 1, "bee": 1}, seed=2)
    for split, index in zip(("train", "val"), scan_splits(tmp_path), strict=True):
        save_index(index_path(tmp_path, split), known(index))
    return tmp_path


def test_a_prepared_index_is_what_a_walk_finds(data):
    for prepared, walked in zip(open_splits(data), scan_splits(data), strict=True):
        assert prepared.prepared
        assert not walked.prepared
        assert (prepared.root, prepared.classes) == (walked.root, walked.classes)
        assert prepared.names.tolist() == walked.names.tolist()
        assert prepared.labels.tolist() == walked.labels.tolist()
        ids = np.arange(len(walked))[::-1]
        assert np.array_equal(prepared.sizes(ids), walked.sizes(ids))
        assert prepared.read(1) == Path(walked.path(1)).read_bytes()


def test_sizes_need_no_file(data):
    train, _ = open_splits(data)
    expected = train.sizes(np.arange(len(train)))
    shutil.rmtree(data / "train")
    assert np.array_equal(train.sizes(np.arange(len(train))), expected)


def test_no_walk_of_the_files_is_made(data, monkeypatch):
    monkeypatch.setattr("dali_pipeline.dataset.index_file.scan_splits", None)
    looked_at = []
    walk = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looked_at.append(str(path)) or walk(path))
    open_splits(data)
    assert looked_at == [str(data / "train"), str(data / "val")]


def test_without_an_index_the_folders_are_walked(data):
    for split in ("train", "val"):
        index_path(data, split).unlink()
    assert not open_splits(data)[0].prepared


def test_names_that_are_not_utf_8_survive(tmp_path):
    index = Index(
        str(tmp_path), (os.fsdecode(b"\xff"), "é"), np.array([b"\xff/a.jpg", "é/b.jpg".encode()]),
        *(np.array(two, np.int32) for two in ([0, 1], [3, 4], [5, 6])), np.array([2**40, 1]),
        note="as it is",
    )  # fmt: skip
    save_index(tmp_path / "index.npz", index)
    again = load_index(tmp_path / "index.npz", tmp_path)
    assert (again.classes, again.note) == (index.classes, "as it is")
    assert again.path(0) == index.path(0)
    assert again.file_bytes.tolist() == [2**40, 1]


def test_an_index_that_cannot_be_read_is_named(data):
    path = index_path(data, "val")
    whole = path.read_bytes()
    for broken in (b"", b"not an index", whole[:200], whole[:-30], whole.replace(b"ant", b"bnt")):
        path.write_bytes(broken)
        with pytest.raises(BadInput, match="val.index.npz is damaged or not an index.*prepare"):
            open_splits(data)
    np.savez(path, names=np.zeros(3))
    with pytest.raises(BadInput, match="val.index.npz is damaged or not an index"):
        open_splits(data)
    path.unlink()
    with pytest.raises(BadInput, match="no index .*val.index.npz: prepare the data again"):
        open_splits(data)


def test_a_file_system_that_refuses_an_index_is_named(data, monkeypatch):
    """It is not taken for a folder without one, nor for a damaged one."""

    def refuse(*_, **__):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(np, "load", refuse)
    for look in (url_of_shards, open_splits):
        with pytest.raises(BadInput, match=r"cannot read index .*train.index.npz: Stale file"):
            look(data)


def test_no_single_byte_of_damage_is_believed_or_ends_in_a_traceback(data):
    path = index_path(data, "val")
    whole = path.read_bytes()
    sound = content(load_index(path, data / "val"))
    for place in range(0, len(whole), 13):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            read = load_index(path, data / "val")
        except BadInput:
            continue
        assert content(read) == sound  # a byte that means nothing, such as a date's


def test_columns_that_contradict_each_other_are_refused(data):
    path, index = index_path(data, "val"), open_splits(data)[1]
    for wrong in (
        {"labels": index.labels + 1},
        {"labels": index.labels - 1},
        {"widths": 0 * index.widths},
    ):
        save_index(path, replace(index, **wrong))
        with pytest.raises(BadInput, match="damaged or not an index"):
            open_splits(data)


def test_an_index_of_another_format_is_refused(data, monkeypatch):
    monkeypatch.setattr("dali_pipeline.dataset.index_file.FORMAT", 2)
    with pytest.raises(BadInput, match="it has format 1, this program 2.*prepare the data again"):
        open_splits(data)


def test_a_folder_that_changed_is_noticed(data):
    again = "prepare the data again"
    last = data / "train" / "bee" / "001.JPEG"
    content = last.read_bytes()
    last.write_bytes(content + b"more")
    with pytest.raises(BadInput, match=f"001.JPEG has changed since its index was made: {again}"):
        open_splits(data)
    last.unlink()
    with pytest.raises(BadInput, match=f"001.JPEG is missing since its index was made: {again}"):
        open_splits(data)
    last.write_bytes(content)
    (data / "val" / "cat").mkdir()
    with pytest.raises(BadInput, match=f"val has 3 class folders, its index 2: {again}"):
        open_splits(data)
    shutil.rmtree(data / "val")
    with pytest.raises(BadInput, match="has no val/"):
        open_splits(data)


@pytest.mark.parametrize("place", ["train", "train/ant/000.JPEG", ".stage/unfinished"])
def test_what_cannot_be_read_is_named(data, monkeypatch, place):
    """As in a folder of another user."""
    for name in ("stat", "scandir"):
        real = getattr(os, name)

        def refuse(path, *more, real=real, **options):
            if str(path).endswith(place):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, *more, **options)

        monkeypatch.setattr(os, name, refuse)
    with pytest.raises(BadInput, match=f"{place}.*Permission denied"):
        open_splits(data)


def test_splits_of_different_data_sets_are_refused(data, tmp_path):
    other = replace(open_splits(data)[1], classes=("ant", "cow"))
    save_index(index_path(data, "val"), other)
    with pytest.raises(BadInput, match="class cow is in .*val but not in .*train"):
        open_splits(data)


def test_an_index_is_mapped_and_not_sent_to_other_processes(data):
    """Each maps the file itself; what was replaced since is sent."""
    train, _ = open_splits(data)
    for column in (train.names, train.labels, train.heights, train.file_bytes):
        assert isinstance(column.base, np.memmap)
    large = replace(train, classes=train.classes + tuple(map(str, range(1000))))
    assert len(pickle.dumps(train)) < 1000
    again = pickle.loads(pickle.dumps(train))
    assert isinstance(again.labels.base, np.memmap)
    assert again.names.tolist() == train.names.tolist()
    assert again.digest() == train.digest()
    part = replace(train, labels=train.labels[:2], names=train.names[:2])
    sent = pickle.loads(pickle.dumps(part))
    assert sent.labels.tolist() == part.labels.tolist()
    assert sent.heights.tolist() == train.heights.tolist()
    assert len({train.digest(), part.digest(), large.digest()}) == 3


def test_where_files_cannot_be_mapped_they_are_read(data, monkeypatch):
    """As on some file systems of FUSE."""
    mapped = [content(index) for index in open_splits(data)]
    walked = [names.tolist() for names in (index.names for index in scan_splits(data))]

    def refuse(*_):
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(np, "memmap", refuse)
    assert [content(index) for index in open_splits(data)] == mapped
    assert [scan_to_disk(data / s, data).names.tolist() for s in ("train", "val")] == walked


def test_the_digest_in_the_file_is_the_one_of_the_folders(data):
    for prepared, walked in zip(open_splits(data), scan_splits(data), strict=True):
        assert prepared.source.digest == walked.digest() == prepared.digest()
        assert replace(prepared, source=None).digest() == walked.digest()
        assert replace(prepared, labels=walked.labels[::-1]).digest() != walked.digest()
        assert replace(prepared, note="other").digest() != walked.digest()


def test_another_index_on_another_node_is_named(data):
    train, val = open_splits(data)
    sent = pickle.dumps(train)
    save_index(index_path(data, "train"), val)
    with pytest.raises(BadInput, match="train.index.npz is another file on .*: copy or mount"):
        pickle.loads(sent)
    index_path(data, "train").unlink()
    with pytest.raises(BadInput, match=r"train.index.npz cannot be read \(No such file"):
        pickle.loads(sent)


def test_another_index_of_the_same_length_on_another_node_is_named(data):
    """Of an earlier version, without a digest, and one that differs in what no digest is of."""
    path, train = index_path(data, "train"), open_splits(data)[0]
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored if name != "digest"}
    for column in ("labels", "heights"):
        np.savez(data / "old.npz", **arrays)
        os.replace(data / "old.npz", path)
        sent = pickle.dumps(load_index(path, data / "train"))
        assert pickle.loads(sent).digest() == train.digest()
        np.savez(data / "other.npz", **{**arrays, column: arrays[column][::-1] + 1})
        os.replace(data / "other.npz", path)
        with pytest.raises(BadInput, match="train.index.npz is another file on .*: copy or mount"):
            pickle.loads(sent)


def test_a_large_index_is_opened_without_reading_it_and_checked_where_it_is_used(data, monkeypatch):
    """As of a billion images: a wrong entry in the middle is seen when it is asked for."""
    monkeypatch.setattr("dali_pipeline.dataset.mapped.CHECKED_BYTES", 0)
    monkeypatch.setattr("dali_pipeline.dataset.index_file.CHECKED_BYTES", 0)
    path, index = index_path(data, "train"), open_splits(data)[0]

    def second(column, value):
        return np.where(np.arange(len(index)) == 1, value, column)

    whole = path.read_bytes()
    for column, look in (("labels", index.labels_of), ("heights", index.sizes)):
        look(np.arange(len(index)))
        save_index(path, replace(index, **{column: second(getattr(index, column), -5)}))
        opened = open_splits(data)[0]
        look = getattr(opened, look.__name__)
        look(np.array([0, 2]))
        with pytest.raises(BadInput, match="the index of .*train is damaged .*: prepare the data"):
            look(np.arange(len(index)))
    for length in (10, len(whole) // 2, len(whole) - 1):
        path.unlink()
        path.write_bytes(whole[:length])
        with pytest.raises(BadInput, match=r"train.index.npz is damaged"):
            open_splits(data)


def test_an_index_of_an_earlier_version_opens_as_it_is(data):
    """Written by ``np.savez``, without a digest, or compressed; its columns are mapped likewise."""
    train, _ = open_splits(data)
    path = index_path(data, "train")
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored if name != "digest"}
    for write, mapped in ((np.savez, True), (np.savez_compressed, False)):
        write(data / "new.npz", **arrays)
        os.replace(data / "new.npz", path)  # never into a file that is mapped
        again = open_splits(data)[0]
        assert isinstance(again.labels.base, np.memmap) == mapped
        assert again.digest() == train.digest()
        assert again.names.tolist() == train.names.tolist()
