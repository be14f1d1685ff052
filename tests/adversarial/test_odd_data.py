"""Data folders: what is missing, what does not fit, and where they lie."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest
from support.launching import TINY
from support.odd_inputs import Ended, assert_ends, call, nothing_written

import train_imagenet

FIRST = "train/ant/000.JPEG"


def train(*options: object, **environment: str) -> Ended:
    return call(train_imagenet.main, *TINY, "--max-steps", 2, *options, **environment)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("none")


def a_loop(path: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to(path.name)


def flat(folder: Path) -> None:
    for path in list(folder.glob("*/*")):
        path.rename(folder / f"{path.parent.name}-{path.name}")
        if not any(path.parent.iterdir()):
            path.parent.rmdir()


def notes_alone(folder: Path) -> None:
    empty(folder)
    (folder / "README.txt").write_text("see there")


def a_fifo_alone(folder: Path) -> None:
    empty(folder)
    os.mkfifo(folder / "000.jpg")


def unfinished(data: Path) -> None:
    (data / ".stage").mkdir()
    (data / ".stage" / "unfinished").touch()


# What is done to the folder, and what the one line has to say.
FOLDERS = {
    "nothing there": (shutil.rmtree, "data does not exist", "--data"),
    "a file": (a_file, "data is no folder", "--data"),
    "a link to itself": (a_loop, "here/data", "--data"),
    "empty": (empty, "has no train/"),
    "no train": (lambda data: shutil.rmtree(data / "train"), "has no train/"),
    "no val": (lambda data: shutil.rmtree(data / "val"), "has no val/", "train/ and val/"),
    "val is a file": (lambda data: a_file(data / "val"), "has no val/"),
    "val is a link to itself": (lambda data: a_loop(data / "val"), "has no val/"),
    "train is called Train": (lambda data: (data / "train").rename(data / "T"), "has no train/"),
    "empty train": (lambda data: empty(data / "train"), "no class folders in", "train"),
    "empty val": (lambda data: empty(data / "val"), "no class folders in", "val"),
    "flat val": (lambda data: flat(data / "val"), "no class folders in", "val/CLASS/IMAGE.jpg"),
    "empty class of train": (lambda data: empty(data / "train/bee"), "bee has no images"),
    "empty class of val": (lambda data: empty(data / "val/bee"), "bee has no images", "remove"),
    "notes in a class": (lambda data: notes_alone(data / "val/bee"), "bee has no images"),
    "FIFO in a class": (lambda data: a_fifo_alone(data / "val/bee"), "bee has no images"),
    "class without train": (lambda data: shutil.rmtree(data / "train/bee"), "class bee is in"),
    "other case": (lambda data: (data / "val/bee").rename(data / "val/Bee"), "class Bee is in"),
    "hidden class": (lambda data: (data / "train/.cache").mkdir(), ".cache has no images"),
    "macOS's folder": (lambda data: (data / "val/__MACOSX").mkdir(), "__MACOSX has no images"),
    "class is a link to itself": (lambda data: a_loop(data / "train/bee"), "bee"),
    "staging unfinished": (unfinished, "is not whole", "dali_pipeline.stage"),
}


@pytest.mark.parametrize("what", FOLDERS)
def test_folders_that_do_not_fit(data, here, what):
    harm, *named = FOLDERS[what]
    harm(data)
    with nothing_written(here):
        assert_ends(train("--data", data, "--output", "run"), 2, *named)


def a_socket(path: Path) -> None:
    os.chdir(path.parent)  # a socket's name has to be short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(path.name)
    os.chdir(path.parents[3])


def nested(data: Path) -> None:
    (data / "train/ant/more").mkdir()
    (data / FIRST).rename(data / "train/ant/more/000.JPEG")


OTHERS = {
    "a FIFO called .jpg": lambda data: os.mkfifo(data / "train/ant/a.jpg"),
    "a device called .jpg": lambda data: (data / "train/ant/a.jpg").symlink_to("/dev/zero"),
    "a socket called .jpg": lambda data: a_socket(data / "train/ant/a.jpg"),
    "a folder called .jpg": lambda data: (data / "train/ant/a.jpg").mkdir(),
    "a link to the folder above": lambda data: (data / "train/ant/up").symlink_to(".."),
    "notes beside images": lambda data: (data / "train/ant/README.txt").write_text("see there"),
    "a file beside classes": lambda data: (data / "train/labels.csv").write_text("ant,0"),
    "images in folders of a class": nested,
    "spaces": lambda data: (data / FIRST).rename(data / "train/ant/a  b .JPEG"),
    "a line's end in a name": lambda data: (data / FIRST).rename(data / "train/ant/a\nb.jpg"),
    "no UTF-8": lambda data: (data / FIRST).rename(data / "train/ant" / os.fsdecode(b"\xe9.jpg")),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_fine(data, what):
    OTHERS[what](data)
    options = ("--data", data, "--output", "run", "--max-steps", 8)
    assert_ends(train(*options), 0, "trained to step 8")


NAMES = ["with  spaces", "caf\xe9 γ", "a\nb", "-x", "x" * 255, os.fsdecode(b"caf\xe9")]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_data_folders(data, here, name):
    moved = data.rename(here / name)
    assert_ends(train("--data", moved, "--output", "run"), 0, "trained to step 2")
    assert_ends(train(f"--data={name}/", "--output", "run", "--max-steps", 4), 0, "to step 4")


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("/none/such", ["/none/such does not exist", "IMAGENET_DIR"]),
        ("/etc/passwd", ["/etc/passwd is no folder", "IMAGENET_DIR"]),
        ("/dev/null", ["/dev/null is no folder", "--data"]),
        ("~nobody-of-that-name/data", ["~nobody-of-that-name", "--data"]),
        ("file:///data", ["file:", "nothing here reads file:"]),
        (f"/{'x' * 300}", ["xxx", "--data"]),
        (" ", ["does not exist", "--data"]),
    ],
)
def test_where_no_data_is(here, value, named):
    with nothing_written(here):
        assert_ends(train("--data", value), 2, *named)
        assert_ends(call(train_imagenet.main, IMAGENET_DIR=value), 2, *named)


def test_a_name_of_nothing(here):
    with nothing_written(here):
        assert_ends(train("--data", ""), 2, "data folder", "train/")


def test_the_papers_recipe_without_its_data(here):
    with nothing_written(here):
        assert_ends(train("--recipe", "paper"), 2, "recipe paper needs images", "--data")
        options = ("--recipe", "paper", "--data", "digits", "--workers", 512)
        assert_ends(train(*options), 2, "512 workers", "1437 training", "lower --workers")
