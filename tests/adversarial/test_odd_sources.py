"""Preparing and staging: sources and destinations that cannot be, archives that are damaged."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.launching import TINY
from support.odd_inputs import Ended, assert_ends, call, files, nothing_written, rows, words

import train_imagenet
from dali_pipeline import prepare, stage
from dali_pipeline.preparation.devkit import DEVKIT
from dali_pipeline.preparation.imagenet_tars import TRAIN_TAR, VAL_TAR

FIRST = "train/ant/000.JPEG"


def preparing(*arguments: object) -> Ended:
    return call(prepare.main, *arguments, "--processes", 1)


PREPARE = [
    ("", "give either SOURCE"),
    ("{data} a b", "unrecognized arguments: b"),
    ("{data} --processes 0", "--processes"),
    ("{data} --processes many", "--processes"),
    ("{data} --quality 90", "--quality needs --max-side"),
    ("{data} --max-side 500", "--max-side needs --pack"),
    ("{data} --pack packed --max-side 0", "--max-side"),
    ("{data} --pack packed --max-side 9 --quality 101", "--quality", "1 to 100"),
    ("{data} --pack packed --shard-bytes 0", "--shard-bytes"),
    ("{data} --pack {data}", "give --pack a folder of its own"),
    ("{data} --repare", "--repare"),
    ("/none", "/none does not exist"),
    ("''", "train"),
    ("{here}/file", "file"),
    ("{here}/loop", "loop"),
    ("{here}/empty", "neither ILSVRC2012_img_train.tar nor train/"),
    ("~nobody-of-that-name", "~nobody-of-that-name"),
    ("{data} {here}/file", "file"),
    ("{data} {here}/file/below", "file"),
    ("{data} /proc/prepared", "/proc/prepared"),
    ("{data} --pack /proc/packed", "/proc/packed"),
    ("{data} --pack {here}/file", "file"),
]


@pytest.mark.parametrize(("given", "named"), rows([(row[0], row[1:]) for row in PREPARE]))
def test_prepare(data, here, given, named):
    (here / "file").touch()
    (here / "empty").mkdir()
    (here / "loop").symlink_to("loop")
    before = files(here)
    given = words(given, data=data, here=here)
    given = given if "--processes" in given else [*given, "--processes", "1"]
    assert_ends(call(prepare.main, *given), 2, *named)
    assert {name.split("/")[0] for name in files(here)} == {name.split("/")[0] for name in before}


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def flat(folder: Path, name: str = "ILSVRC2012_val_00000001.JPEG") -> None:
    image = next(folder.glob("*/*")).read_bytes()
    empty(folder)
    (folder / name).write_bytes(image)


def wnids(data: Path) -> None:
    for number, name in enumerate(("ant", "bee", "cat")):
        for split in ("train", "val"):
            (data / split / name).rename(data / split / f"n0000000{number}")


def bad(path: Path) -> None:
    path.write_bytes(b"not a picture")


def bad_class(data: Path) -> None:
    for path in (data / "train/ant").iterdir():
        bad(path)


SOURCES: dict[str, tuple] = {
    "no val": (lambda data: shutil.rmtree(data / "val"), "neither ILSVRC2012_img_val.tar nor val/"),
    "val a file": (lambda data: (shutil.rmtree(data / "val"), (data / "val").touch()), "val/"),
    "empty class": (lambda data: empty(data / "val/bee"), "bee has no images"),
    "class without train": (lambda data: shutil.rmtree(data / "train/bee"), "class bee is in"),
    "flat val, no kit": (lambda data: flat(data / "val"), f"no {'{data}'}/{DEVKIT}"),
    "not all of ImageNet": (wnids, "not ImageNet as it should be", "--any-count"),
    "text as an image": (lambda data: bad(data / FIRST), "1 images cannot be decoded", FIRST),
    "empty image": (lambda data: (data / FIRST).write_bytes(b""), FIRST, "--drop-bad"),
    "a broken link": (lambda data: (data / "train/ant/a.jpg").symlink_to("none"), "a.jpg"),
    "a link to itself": (lambda data: (data / "train/ant/a.jpg").symlink_to("a.jpg"), "a.jpg"),
    "memory a file": (lambda data: (data / ".prepare").touch(), ".prepare"),
    "report a folder": (lambda data: (data / "prepare-report.txt").mkdir(), "prepare-report.txt"),
    "index a folder": (lambda data: (data / "train.index.npz").mkdir(), "train.index.npz"),
    "unfinished": (
        lambda data: ((data / ".stage").mkdir(), (data / ".stage/unfinished").touch()),
        *("not whole", "dali_pipeline.stage"),
    ),
}


@pytest.mark.parametrize("what", SOURCES)
def test_sources_that_cannot_be_prepared(data, what):
    harm, *named = SOURCES[what]
    harm(data)
    assert_ends(preparing(data), 2, *(name.format(data=data) for name in named))


def test_what_cannot_be_decoded_is_dropped_where_that_is_wanted(data):
    bad(data / FIRST)
    assert_ends(preparing(data, "--drop-bad"), 0, "1 undecodable", "indexed")
    bad_class(data)
    assert_ends(preparing(data, "--drop-bad"), 2, "no image of class ant", "prepare-report.txt")


def test_two_images_of_one_name_in_a_shard(data, here):
    shutil.copy(data / FIRST, data / "train/ant/000.png")
    ended = preparing(data, "--pack", here / "packed")
    assert_ends(ended, 2, "two images of", "ant/000", "rename one")


@pytest.mark.parametrize("memory", ["", "{", "[1]", '{"looks-1": [1]}', '{"looks-1": {"a": 1}}'])
def test_a_memory_that_makes_no_sense_is_not_relied_on(prepared, memory):
    for path in (prepared / ".prepare").rglob("*.json"):
        path.write_text(memory)
    assert_ends(preparing(prepared), 0, "indexed: train with --data")


def tar(path: Path, *members: tuple[str, bytes | str], mode: str = "w") -> None:
    """Write a tar of files; a text is where a link points to, ``=`` before it a hard link's."""
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
                continue
            hard = content.startswith("=")
            member.type = tarfile.LNKTYPE if hard else tarfile.SYMTYPE
            member.linkname = content.lstrip("=")
            archive.addfile(member)


def train_tar(path: Path, *images: tuple[str, bytes | str]) -> None:
    tar(path.with_name("inner.tar"), *images)
    tar(path, ("n00000001.tar", path.with_name("inner.tar").read_bytes()))


TARS: dict[str, tuple] = {
    "text": (lambda path: path.write_text("not found"), "damaged or incomplete"),
    "empty file": (lambda path: path.touch(), "damaged or incomplete"),
    "a folder": (lambda path: path.mkdir(), TRAIN_TAR),
    "packed by gzip": (lambda path: tar(path, ("a", b"x"), mode="w:gz"), "damaged or incomplete"),
    "cut off": (lambda path: (train_tar(path, ("a.JPEG", b"x" * 9999)), cut(path)), "damaged"),
    "other names": (lambda path: tar(path, ("ant.tar", b"x")), "refusing 'ant.tar'"),
    "outer ../": (
        lambda path: tar(path, ("../n00000001.tar", b"x")),
        "refusing '../n00000001.tar'",
    ),
    "class tar of text": (lambda path: tar(path, ("n00000001.tar", b"x")), TRAIN_TAR, "damaged"),
    "../": (lambda path: train_tar(path, ("../../evil.JPEG", b"x")), "refusing '../../evil.JPEG'"),
    "absolute": (lambda path: train_tar(path, ("/evil.JPEG", b"x")), "refusing '/evil.JPEG'"),
    "link": (lambda path: train_tar(path, ("a.JPEG", "/etc/passwd")), "refusing 'a.JPEG'"),
    "hard link": (lambda path: train_tar(path, ("a.JPEG", "=/etc/passwd")), "refusing 'a.JPEG'"),
    "empty name": (lambda path: train_tar(path, ("..", b"x")), "refusing '..'"),
    "nothing in it": (lambda path: tar(path), "no class folders"),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:4000])


@pytest.mark.parametrize("what", TARS)
def test_tars(data, here, what):
    write, *named = TARS[what]
    write(data / TRAIN_TAR)
    assert_ends(preparing(data, here / "new" / "set"), 2, *named)
    assert not list(here.rglob("evil*"))
    assert not (here / "new" / "set" / "train.index.npz").exists()


KITS: dict[str, Callable[[Path], object]] = {
    "none": lambda path: None,
    "text": lambda path: path.write_text("not found"),
    "a folder": lambda path: path.mkdir(),
    "nothing in it": lambda path: tar(path, mode="w:gz"),
    "something else": lambda path: tar(path, ("ILSVRC2012_devkit_t12/data/meta.mat", b"x")),
}


@pytest.mark.parametrize("what", KITS)
def test_development_kits(data, what):
    KITS[what](data / DEVKIT)
    shutil.rmtree(data / "val")
    tar(data / VAL_TAR, ("ILSVRC2012_val_00000001.JPEG", b"x"))
    assert_ends(preparing(data), 2, DEVKIT)


STAGE = [
    ("", "required: SOURCE, DESTINATION"),
    ("{data}", "required: DESTINATION"),
    ("{data} to more", "unrecognized arguments: more"),
    ("{data} to --threads 0", "--threads 0"),
    ("{data} to --threads x", "--threads"),
    ("{data} to --pack --verify", "--verify", "--pack"),
    ("{data} to --pack", "no index, which --pack needs"),
    ("{data} to --verfy", "--verfy"),
    ("/none to", "/none has no train/"),
    ("{here}/file to", "file has no train/"),
    ("{here}/loop to", "loop"),
    ("{data}/train to", "train has no train/"),
    ("{data} {data}", "lies in"),
    ("{data} {data}/val/copy", "lies in"),
    ("{data} {here}/link/copy", "lies in"),
    ("{data} {here}/file", "file"),
    ("{data} {here}/file/below", "file"),
    ("{data} {here}/loop", "loop"),
    ("{data} /proc/staged", "/proc/staged"),
    ("~nobody-of-that-name to", "~nobody-of-that-name"),
    ("{data} ~nobody-of-that-name/to", "~nobody-of-that-name"),
]


@pytest.mark.parametrize(("given", "named"), rows([(row[0], row[1:]) for row in STAGE]))
def test_stage(data, here, given, named):
    (here / "file").touch()
    (here / "link").symlink_to(data)
    (here / "loop").symlink_to("loop")
    with nothing_written(here, {"to", *(f"to/.stage{name}" for name in ("", "/lock", "/partial"))}):
        assert_ends(call(stage.main, *words(given, data=data, here=here)), 2, *named)


STAGED: dict[str, tuple] = {
    "a broken link": (lambda data: (data / "train/ant/a.jpg").symlink_to("none"), "a.jpg"),
    "a link to itself": (lambda data: (data / "train/ant/a.jpg").symlink_to("a.jpg"), "a.jpg"),
    "index damaged": (lambda data: bad(data / "train.index.npz"), "train.index.npz", "damaged"),
    "index out of date": (lambda data: (data / FIRST).unlink(), FIRST, "is missing"),
    "unfinished itself": (
        lambda data: ((data / ".stage").mkdir(), (data / ".stage/unfinished").touch()),
        "not whole",
    ),
}


@pytest.mark.parametrize("what", STAGED)
def test_sources_that_cannot_be_staged(prepared, here, what):
    harm, *named = STAGED[what]
    harm(prepared)
    assert_ends(call(stage.main, prepared, here / "to"), 2, *named)
    assert not (here / "to" / "train.index.npz").exists()


def test_a_source_without_index_that_is_itself_unfinished(data, here):
    (data / ".stage").mkdir()
    (data / ".stage" / "unfinished").touch()
    assert_ends(call(stage.main, data, here / "to"), 2, str(data), "not whole")


def test_what_can_be_trained_on_can_be_staged(data, here):
    """Also with a FIFO among the images, which nobody reads."""
    os.mkfifo(data / "train/ant/a.jpg")
    assert_ends(call(stage.main, data, here / "to"), 0, "staged: train with --data")
    given = ("--data", here / "to", "--output", "run", "--max-steps", 2)
    assert_ends(call(train_imagenet.main, *TINY, *given), 0, "trained to step 2")
