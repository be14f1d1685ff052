"""A staged data set is the source's to the byte, and training on it the same."""

import os
import shutil
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
from support.images import write_jpegs
from support.launching import REPOSITORY

from dali_pipeline import prepare, stage
from dali_pipeline.dataset.index_file import open_splits
from dali_pipeline.dataset.scan import UNFINISHED, check_splits
from dali_pipeline.staging.node import Staged
from hvd_utils.cli.errors import BadInput


@pytest.fixture
def folders(tmp_path):
    """Class folders as anybody has them."""
    source = tmp_path / "source"
    write_jpegs(source / "train", {"ant": 3, "bee": 4}, seed=1)
    write_jpegs(source / "val", {"ant": 2, "bee": 1}, seed=2)
    (source / "notes.txt").write_text("no part of the data")
    return source


@pytest.fixture
def prepared(folders):
    prepare.main([str(folders), "--processes", "1"])
    return folders


@pytest.fixture
def local(tmp_path):
    return tmp_path / "local" / "data"


def run(*arguments):
    stage.main([str(argument) for argument in arguments])


def contents(folder):
    """What training sees of a folder: the bytes of every file by its name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] in ("train", "val")
    }


def inodes(folder):
    return {path: path.stat().st_ino for path in folder.rglob("*.*") if path.is_file()}


def assert_same_trajectory(source, local):
    """Every column of the indexes, but the folder, and so the order of training."""
    for ours, theirs in zip(open_splits(local), open_splits(source), strict=True):
        for name in {f.name for f in fields(ours)} - {"root", "source", "_sizes"}:
            one, other = getattr(ours, name), getattr(theirs, name)
            assert np.array_equal(one, other), name
        for image in range(len(ours)):
            assert ours.path(image).startswith(f"{local}/")
            assert ours.read(image) == theirs.read(image)


@pytest.mark.parametrize("form", ["folders", "prepared", "packed"])
def test_a_staged_set_trains_as_its_source(request, tmp_path, local, form, capsys):
    if form == "packed":
        source = tmp_path / "packed"
        data = request.getfixturevalue("prepared")
        prepare.main(
            [str(data), "--processes", "1", "--pack", str(source), "--shard-bytes", "9000"]
        )
    else:
        source = request.getfixturevalue(form)
    run(source, local)
    assert contents(local) == contents(source)
    assert_same_trajectory(source, local)
    first = inodes(local)
    capsys.readouterr()
    run(source, local, "--verify")
    assert inodes(local) == first
    assert "nothing to copy" in capsys.readouterr().out


def test_packing_on_the_way_keeps_order_and_bytes(prepared, local, capsys):
    run(prepared, local, "--pack", "--threads", 1)
    for ours, theirs in zip(open_splits(local), open_splits(prepared), strict=True):
        assert ours.packed
        assert ours.classes == theirs.classes
        images = range(len(theirs))
        assert [ours.read(i) for i in images] == [theirs.read(i) for i in images]
        assert ours.labels.tolist() == theirs.labels.tolist()
    capsys.readouterr()
    run(prepared, local, "--pack", "--threads", 1)
    assert "nothing to copy" in capsys.readouterr().out


def test_packing_needs_an_index_and_loose_images(folders, tmp_path, local):
    with pytest.raises(BadInput, match="has no index, which --pack needs: run python -m dali"):
        run(folders, local, "--pack")
    prepare.main([str(folders), "--processes", "1", "--pack", str(tmp_path / "packed")])
    with pytest.raises(BadInput, match="is packed already"):
        run(tmp_path / "packed", local, "--pack")


def test_what_changed_in_the_source_is_copied_again_and_nothing_else(folders, local):
    run(folders, local)
    before = inodes(local)
    image, touched = folders / "train/ant/000.JPEG", folders / "val/bee/000.JPEG"
    image.write_bytes(b"longer" * 1000)
    os.utime(touched, (10**9, 10**9))
    (folders / "train/bee/new.JPEG").write_bytes(b"new")
    run(folders, local)
    assert contents(local) == contents(folders)
    same = {path for path, inode in inodes(local).items() if before.get(path) == inode}
    assert before.keys() - same == {local / "train/ant/000.JPEG", local / "val/bee/000.JPEG"}


def test_verify_finds_what_size_and_time_do_not_tell(folders, local, capsys):
    run(folders, local)
    damaged = local / "train/ant/001.JPEG"
    stat = damaged.stat()
    damaged.write_bytes(bytes(stat.st_size))
    os.utime(damaged, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    run(folders, local)
    assert contents(local) != contents(folders)
    run(folders, local, "--verify")
    assert contents(local) == contents(folders)
    assert ": 1 of 10 files" in capsys.readouterr().out


def test_files_that_the_source_has_not_are_refused_for_they_would_be_trained_on(folders, local):
    run(folders, local)
    (local / "train/ant/zzz.JPEG").touch()
    with pytest.raises(BadInput, match=r"has 1 files .* first train/ant/zzz.JPEG: remove them"):
        run(folders, local)


def test_a_disk_too_small_is_refused_before_anything_is_copied(folders, local):
    huge = folders / "train/ant/huge.JPEG"
    disk = shutil.disk_usage(folders)
    with huge.open("wb") as file:
        file.truncate(disk.free + 10**9)  # takes no room where it is
    with pytest.raises(BadInput, match=r"too small: [\d,]+ bytes are needed, [\d,]+ are free"):
        run(folders, local)
    assert contents(local) == {}


def test_an_unfinished_folder_is_no_data_set(folders, local):
    run(folders, local)
    check_splits(local)
    (local / UNFINISHED).touch()  # as a killed staging leaves it
    with pytest.raises(BadInput, match=r"not whole: start python -m dali_pipeline.stage again"):
        check_splits(local)
    run(folders, local)
    check_splits(local)


def test_folders_that_cannot_work_are_named(folders, local, tmp_path):
    with pytest.raises(BadInput, match="lies in"):
        run(folders, folders)
    with pytest.raises(BadInput, match="has no train/"):
        run(tmp_path / "none", local)
    with pytest.raises(BadInput, match=r"--threads 0 is less than 1"):
        run(folders, local, "--threads", 0)
    (folders / "val" / "ant" / "gone.JPEG").symlink_to("/none/such")
    with pytest.raises(BadInput, match=r"gone.JPEG: No such file"):
        run(folders, local)


def test_the_summary_names_the_slowest_of_the_nodes_that_copied():
    results = [
        Staged("node1", files=9, copied=9, bytes=10**9, seconds=2),
        Staged("node2", files=9, copied=9, bytes=10**9, seconds=5),
        Staged("node3", files=9, seconds=60),
    ]
    *nodes, slowest = stage.summary(results)
    assert nodes[0] == "node1: 9 of 9 files, 1.0 GB in 2.0 s, 500.0 MB/s"
    assert nodes[2].startswith("node3: nothing to copy")
    assert slowest == "slowest: node2, 200.0 MB/s"


def test_staging_needs_neither_torch_nor_horovod():
    program = (
        "import sys, dali_pipeline.stage; sys.exit(bool({'torch', 'horovod'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY).returncode == 0
