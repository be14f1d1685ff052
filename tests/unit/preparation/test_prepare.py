"""ImageNet's tars, or class folders, become a verified data set with an index."""

import errno
import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torchvision
from support.images import write_jpegs
from support.preparing import COUNTS, VAL, jpeg, run, state, tar_of, write_tars

from dali_pipeline.dataset.index_file import open_splits
from dali_pipeline.dataset.scan import scan_splits
from dali_pipeline.preparation import imagenet_tars
from dali_pipeline.preparation.devkit import DEVKIT, GROUND_TRUTH, SYNSETS, read_devkit
from dali_pipeline.preparation.imagenet_tars import TRAIN_TAR, VAL_TAR
from hvd_utils.cli.errors import BadInput
from hvd_utils.faults.folder_lock import InUse, locked_folder


@pytest.fixture
def tars(tmp_path) -> Path:
    return write_tars(tmp_path / "tars")


def images(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.glob("[tv]*/*/*"))


def test_tars_become_class_folders_with_an_index(tars, tmp_path, capsys):
    dest = tmp_path / "imagenet"
    run(tars, dest, "--any-count")
    wnids = list(COUNTS)
    assert images(dest) == [
        *(f"train/{wnid}/{wnid}_{i}.JPEG" for wnid in wnids for i in range(COUNTS[wnid])),
        "val/n01440764/ILSVRC2012_val_00000002.JPEG",
        "val/n01440764/ILSVRC2012_val_00000004.JPEG",
        "val/n01443537/ILSVRC2012_val_00000003.JPEG",
        "val/n02105855/ILSVRC2012_val_00000001.JPEG",
    ]
    for prepared, walked in zip(open_splits(dest), scan_splits(dest), strict=True):
        assert prepared.prepared
        assert prepared.names.tolist() == walked.names.tolist()
        ids = np.arange(len(walked))
        assert np.array_equal(prepared.sizes(ids), walked.sizes(ids))
    assert open_splits(dest)[0].read(4) == jpeg(4)
    assert "train: 9 images, 3 classes" in capsys.readouterr().out


def test_running_twice_changes_nothing(tars, tmp_path):
    dest = tmp_path / "imagenet"
    run(tars, dest, "--any-count")
    before = state(dest)
    run(tars, dest, "--any-count")
    after = state(dest)
    rewritten = {name for name in before if before[name] != after[name]}
    assert before.keys() == after.keys()
    assert rewritten <= {"train.index.npz", "val.index.npz", "prepare-report.txt"}
    assert all(before[name][0] == after[name][0] for name in rewritten)


@pytest.mark.parametrize("extracted", range(0, 13, 3))
def test_an_interrupted_extraction_goes_on(tars, tmp_path, monkeypatch, extracted):
    dest, copy, copied = tmp_path / "imagenet", shutil.copyfileobj, []

    def interrupted(source, file):
        if len(copied) == extracted:
            file.write(source.read(100))
            raise KeyboardInterrupt
        copied.append(file.name)
        copy(source, file)

    with monkeypatch.context() as patch:
        patch.setattr(imagenet_tars.shutil, "copyfileobj", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tars, dest, "--any-count")
    for wnid, count in COUNTS.items():  # what has its final name is whole
        folder = dest / "train" / wnid
        assert not folder.exists() or len(list(folder.iterdir())) == count
    again = []
    monkeypatch.setattr(
        imagenet_tars.shutil, "copyfileobj", lambda *files: again.append(1) or copy(*files)
    )
    run(tars, dest, "--any-count")
    assert len(again) == sum(COUNTS.values()) + len(VAL) - extracted
    assert open_splits(dest)[0].read(8) == jpeg(8)


def test_class_folders_are_indexed_where_they_are(tmp_path, capsys):
    write_jpegs(tmp_path / "train", {"ant": 3, "bee": 2})
    write_jpegs(tmp_path / "val", {"ant": 1, "bee": 1})
    before = state(tmp_path)
    run(tmp_path)
    after = state(tmp_path)
    assert {name: after[name] for name in before} == before
    assert open_splits(tmp_path)[0].prepared
    assert "val: 2 images, 2 classes" in capsys.readouterr().out


def test_class_folders_are_brought_to_another_folder(tmp_path, monkeypatch):
    source = tmp_path / "source"
    write_jpegs(source / "train", {"ant": 3, "bee": 2})
    write_jpegs(source / "val", {"ant": 1, "bee": 1})
    run(source, tmp_path / "linked")
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EXDEV, "")))
    run(source, tmp_path / "copied")
    for dest in ("linked", "copied"):
        assert images(tmp_path / dest) == images(source)
        first = open_splits(tmp_path / dest)[0].read(0)
        assert first == (source / "train" / "ant" / "000.JPEG").read_bytes()


def test_linked_folders_and_links_that_lead_nowhere_are_as_in_place(tmp_path, capsys):
    """A copy has the images that a scan of the source finds."""
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    write_jpegs(source / "train", {"ant": 3, "bee": 2})
    write_jpegs(source / "val", {"ant": 1, "bee": 1})
    write_jpegs(elsewhere, {"more": 2})
    (source / "train" / "ant" / "more").symlink_to(elsewhere / "more")
    (source / "train" / "bee" / "gone.JPEG").symlink_to("nowhere")
    names = scan_splits(source)[0].names.tolist()
    for dest in (tmp_path / "dest", source):
        with pytest.raises(BadInput, match="1 images cannot be decoded, first .*gone.JPEG"):
            run(source, dest)
        assert scan_splits(dest)[0].names.tolist() == names
        run(source, dest, "--drop-bad")
        assert len(open_splits(dest)[0]) == len(names) - 1 == 7


def test_a_folder_that_cannot_be_read_is_named_and_nothing_half_is_kept(tmp_path, monkeypatch):
    source = tmp_path / "source"
    write_jpegs(source / "train", {"ant": 3})
    write_jpegs(source / "train" / "ant", {"more": 2})
    write_jpegs(source / "val", {"ant": 1})
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("more"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(BadInput, match="cannot read data folder .*more: Permission denied"):
        run(source, tmp_path / "dest")
    assert not (tmp_path / "dest" / "train" / "ant").exists()


def test_two_at_once_are_refused(tmp_path):
    for split in ("train", "val"):
        write_jpegs(tmp_path / "data" / split, {"ant": 1})
    packed = tmp_path / "packed"
    for folder in (tmp_path / "data", packed):
        with (
            locked_folder(folder / ".prepare", "folder"),
            pytest.raises(InUse, match=f"{folder}/.prepare is in use by a job on .*: wait for it"),
        ):
            run(tmp_path / "data", "--pack", packed)
    run(tmp_path / "data", "--pack", packed)
    with locked_folder(packed / ".prepare", "folder"), pytest.raises(InUse):
        run("--from-shards", packed)


@pytest.mark.parametrize("in_place", [True, False])
def test_flat_validation_images_are_sorted(tars, tmp_path, in_place):
    run(tars, tmp_path / "whole", "--any-count")
    source = tmp_path / "source"
    shutil.copytree(tmp_path / "whole" / "train", source / "train")
    shutil.copy(tars / DEVKIT, source)
    (source / "val").mkdir()
    with tarfile.open(tars / VAL_TAR) as tar:
        for member in tar:
            (source / "val" / member.name).write_bytes(tar.extractfile(member).read())
    # As an interrupted sorting leaves it.
    first = source / "val" / "n02105855" / "ILSVRC2012_val_00000001.JPEG"
    if in_place:
        first.parent.mkdir()
        (source / "val" / first.name).rename(first)
    dest = source if in_place else tmp_path / "dest"
    run(source, dest, "--any-count")
    assert images(dest) == images(tmp_path / "whole")
    assert len(list((source / "val").glob("*.JPEG"))) == (0 if in_place else len(VAL))


def test_a_flat_image_that_is_not_imagenets_is_refused_before_any_moves(tars, tmp_path):
    run(tars, tmp_path / "source", "--any-count")
    shutil.copy(tars / DEVKIT, tmp_path / "source")
    before = images(tmp_path / "source")
    for name in ("ILSVRC2012_val_00000005.JPEG", "holiday.jpg"):
        (tmp_path / "source" / "val" / name).write_bytes(jpeg(1))
        with pytest.raises(BadInput, match=f"{name} is not the name of an ImageNet"):
            run(tmp_path / "source")
        (tmp_path / "source" / "val" / name).unlink()
    assert images(tmp_path / "source") == before


def test_the_development_kit_is_read_as_torchvision_reads_it(tars, monkeypatch):
    devkit = read_devkit(tars / DEVKIT)
    monkeypatch.setattr(torchvision.datasets.imagenet, "_verify_archive", lambda *_: None)
    torchvision.datasets.imagenet.parse_devkit_archive(tars)
    leaves, val_classes = torchvision.datasets.imagenet.load_meta_file(tars)
    assert devkit.val_classes == tuple(val_classes)
    assert devkit.train_counts.keys() == leaves.keys()


def test_the_development_kit_names_leaves_only(tars):
    devkit = read_devkit(tars / DEVKIT)
    assert devkit.val_classes == ("n02105855", "n01440764", "n01443537", "n01440764")
    assert devkit.train_counts == COUNTS
    assert devkit.val_counts == {"n01440764": 2, "n01443537": 1, "n02105855": 1}


def test_counts_other_than_imagenets_are_named(tars, tmp_path, capsys):
    dest = tmp_path / "imagenet"
    with pytest.raises(BadInput, match="3 classes, ImageNet has 1,000; .*--any-count"):
        run(tars, dest)
    assert not list(dest.glob("*.npz"))
    (dest / "train" / "n02105855" / "n02105855_1.JPEG").unlink()
    capsys.readouterr()
    run(tars, dest, "--any-count")
    out = capsys.readouterr().out
    assert "train: 8 images, ImageNet has 1,281,167" in out
    assert "train: class n02105855 has 3 images, ImageNet's 4" in out
    assert "n01440764" not in out
    (tars / DEVKIT).unlink()  # without it, ImageNet's bounds are known
    run(tars, dest, "--any-count")
    out = capsys.readouterr().out
    assert "train: class n01440764 has 3 images, ImageNet's 732 to 1,300" in out
    assert "val: class n01440764 has 2 images, ImageNet's 50" in out


@pytest.mark.parametrize("name", ["../evil.JPEG", "/tmp/evil.JPEG", "folder/x.JPEG", ".."])
def test_a_name_that_leaves_its_folder_is_refused(tars, tmp_path, name):
    inner = tar_of({name: b"evil"})
    (tars / TRAIN_TAR).write_bytes(tar_of({"n01440764.tar": inner}))
    with pytest.raises(BadInput, match="refusing .*expected plain files without folders"):
        run(tars, tmp_path / "a" / "imagenet")
    (tars / TRAIN_TAR).write_bytes(tar_of({f"{name}.tar": inner}))
    with pytest.raises(BadInput, match="refusing .*expected tars named after a class"):
        run(tars, tmp_path / "a" / "imagenet")
    assert not list(tmp_path.rglob("evil*"))


def test_links_in_a_tar_are_refused(tars, tmp_path):
    link = tarfile.TarInfo("x.JPEG")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as tar:
        tar.addfile(link)
    (tars / TRAIN_TAR).write_bytes(tar_of({"n01440764.tar": inner.getvalue()}))
    with pytest.raises(BadInput, match="refusing 'x.JPEG'"):
        run(tars, tmp_path / "imagenet")


def test_damaged_and_missing_files_are_named(tars, tmp_path):
    dest = tmp_path / "imagenet"
    with pytest.raises(BadInput, match="folder .*nowhere does not exist"):
        run(tmp_path / "nowhere")
    whole = {path.name: path.read_bytes() for path in tars.iterdir()}
    for name in (TRAIN_TAR, VAL_TAR):
        for damage in (b"", b"not a tar" * 200, whole[name][: len(whole[name]) // 2]):
            (tars / name).write_bytes(damage)
            with pytest.raises(BadInput, match=f"{name} is damaged or incomplete"):
                run(tars, dest, "--any-count")
        (tars / name).write_bytes(whole[name])
    (tars / VAL_TAR).write_bytes(tar_of({"ILSVRC2012_val_00000001.JPEG": jpeg(9)}))
    with pytest.raises(BadInput, match="has 1 images, the development kit names 4"):
        run(tars, dest, "--any-count")
    (tars / VAL_TAR).write_bytes(whole[VAL_TAR])
    for damage in (b"not a tar", whole[DEVKIT][:-50], tar_of({SYNSETS: b"x", GROUND_TRUTH: b""})):
        (tars / DEVKIT).write_bytes(damage)
        with pytest.raises(BadInput, match=f"{DEVKIT} is damaged or not ImageNet's"):
            run(tars, dest, "--any-count")
    (tars / DEVKIT).unlink()
    with pytest.raises(BadInput, match=f"no .*{DEVKIT}: it says which class"):
        run(tars, dest, "--any-count")
    (tars / VAL_TAR).unlink()
    with pytest.raises(BadInput, match=f"has neither {VAL_TAR} nor val/ with a folder for each cl"):
        run(tars, dest, "--any-count")
    folders = tars / "folders"
    (folders / "train").mkdir(parents=True)
    with pytest.raises(BadInput, match="nor val/ .*: move some images of each class from train/"):
        run(folders, dest, "--any-count")


def test_a_full_disk_is_one_line(tars, tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(imagenet_tars.shutil, "copyfileobj", lambda *_: (_ for _ in ()).throw(full))
        with pytest.raises(BadInput, match="no space left for .*; what is done stays"):
            run(tars, tmp_path / "imagenet", "--any-count")
    run(tars, tmp_path / "imagenet", "--any-count")


def test_a_folder_that_cannot_be_written_is_named(tars, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="file/imagenet.*: Not a directory"):
        run(tars, tmp_path / "file" / "imagenet")
