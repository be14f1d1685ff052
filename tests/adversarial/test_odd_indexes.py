"""Prepared and packed data: indexes that are damaged, out of date, or of another kind."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.launching import TINY
from support.odd_inputs import Ended, assert_ends, call, nothing_written
from support.preparing import run as prepare

import train_imagenet

INDEX, VAL_INDEX = "train.index.npz", "val.index.npz"
FIRST = "train/ant/000.JPEG"
AGAIN = "dali_pipeline.prepare"


def train(data: Path, *options: object) -> Ended:
    run = ("--data", data, "--output", "run", "--max-steps", 8)
    return call(train_imagenet.main, *TINY, *run, *options)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-400])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def of_code(path: Path) -> None:
    path.write_bytes(pickle.dumps(exit))


# What is done to the index, and what the one line says beside its name.
INDEXES: dict[str, tuple] = {
    "empty": (lambda path: path.write_bytes(b""), "damaged or not an index"),
    "text": (lambda path: path.write_text("ant/000.JPEG\n"), "damaged or not an index"),
    "cut off": (cut, "damaged or not an index"),
    "a bit flipped": (flipped, "damaged or not an index"),
    "code": (of_code, "damaged or not an index"),
    "a folder": (a_folder, "index"),
    "a link to itself": (a_loop, "index"),
    "a link to nothing": (lambda path: (path.unlink(), path.symlink_to("none")), "no index"),
    "one of two": (lambda path: path.unlink(), "no index"),
    "one array": (lambda path: np.save(path.open("wb"), np.arange(3)), "not an index"),
    "no arrays": (lambda path: np.savez(path.open("wb")), "not an index"),
}


@pytest.mark.parametrize("what", INDEXES)
def test_files_that_are_no_index(prepared, here, what):
    harm, *named = INDEXES[what]
    harm(prepared / INDEX)
    with nothing_written(here):
        assert_ends(train(prepared), 2, str(prepared / INDEX), *named, AGAIN)


def change(path: Path, **columns: Callable[[np.ndarray], Any]) -> None:
    """Write an index again with columns changed; those that become None are left out."""
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays |= {name: columns[name](arrays.get(name)) for name in columns}
    np.savez(path.open("wb"), **{n: value for n, value in arrays.items() if value is not None})


# Which column is changed how, and what the line says.
COLUMNS: dict[str, tuple] = {
    "format of the future": ({"format": lambda format: format + 1}, "it has format 2"),
    "format text": ({"format": lambda format: np.array("new")}, "it has format new"),
    "no format": ({"format": lambda format: None}, "format"),
    "no labels": ({"labels": lambda labels: None}, "labels"),
    "no note": ({"note": lambda note: None}, "note"),
    "labels too large": ({"labels": lambda labels: labels + 9}, "labels out of range"),
    "labels negative": ({"labels": lambda labels: labels - 1}, "labels out of range"),
    "labels text": ({"labels": lambda labels: np.array(["ant"] * len(labels))}, "index"),
    "fewer labels": ({"labels": lambda labels: labels[:-1]}, "labels does not fit"),
    "heights of a table": ({"heights": lambda h: h[:, None]}, "heights does not fit"),
    "widths of nothing": ({"widths": lambda widths: widths * 0}, "widths"),
    "sizes negative": ({"file_bytes": lambda sizes: -sizes}, "file_bytes"),
    "names text": ({"names": lambda names: names.astype(str)}, "names no images"),
    "objects": ({"names": lambda names: names.astype(object)}, "index"),
    "no images": (
        {n: lambda v: v[:0] for n in ("names", "labels", "heights", "widths", "file_bytes")},
        "names no images",
    ),
    "shards of another": ({"shards": lambda shards: np.array([b"000000.tar"])}, "index"),
    "fewer classes": ({"classes": lambda classes: classes[:2]}, "labels out of range"),
    "other classes": ({"classes": lambda classes: np.array([b"a", b"b", b"c"])}, "class"),
    "a class more": ({"classes": lambda classes: np.array([*classes, b"dog"])}, "its index 4"),
    "names of elsewhere": ({"names": lambda names: np.char.add(b"../../x/", names)}, "is missing"),
}


@pytest.mark.parametrize("what", COLUMNS)
def test_indexes_that_contradict_themselves_or_the_folder(prepared, here, what):
    columns, *named = COLUMNS[what]
    change(prepared / INDEX, **columns)
    with nothing_written(here):
        assert_ends(train(prepared), 2, *named)


# What happened to the data since, and what the line says.
SINCE: dict[str, tuple] = {
    "first image gone": (lambda data: (data / FIRST).unlink(), FIRST, "is missing"),
    "first image replaced": (lambda data: (data / FIRST).write_bytes(b"x"), FIRST, "has changed"),
    "first image a folder": (lambda data: a_folder(data / FIRST), FIRST, "has changed"),
    "class gone": (lambda data: shutil.rmtree(data / "train/bee"), "2 class folders", "index 3"),
    "class more": (lambda data: (data / "val/dog").mkdir(), "4 class folders", "its index 3"),
    "train gone": (lambda data: shutil.rmtree(data / "train"), "has no train/"),
}


@pytest.mark.parametrize("what", SINCE)
def test_data_that_changed_since(prepared, here, what):
    harm, *named = SINCE[what]
    harm(prepared)
    with nothing_written(here):
        assert_ends(train(prepared), 2, *named)


@pytest.mark.parametrize("loader", ["dali", "torchvision"])
@pytest.mark.parametrize("content", [None, b"", b"x", "another"])
def test_an_image_in_the_middle_that_changed_since(prepared, content, loader):
    path = prepared / "train/bee/005.JPEG"
    path.unlink()
    if content is not None:
        path.write_bytes((prepared / FIRST).read_bytes() if content == "another" else content)
    options = ("--loader", loader, "--epochs", 1)
    assert_ends(train(prepared, *options), 2, "cannot read image", str(path), "skip")
    assert_ends(train(prepared, *options, "--on-bad-image", "skip"), 0, str(path))


@pytest.fixture(scope="session")
def packed_data(tiny_data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    shutil.copytree(tiny_data, folder / "data")
    prepare(folder / "data", "--pack", folder / "packed")
    return folder / "packed"


@pytest.fixture
def packed(packed_data, here) -> Path:
    return shutil.copytree(packed_data, here / "packed")


SHARD = "train/000000.tar"
SHARDS: dict[str, tuple] = {
    "shard gone": (lambda data: (data / SHARD).unlink(), SHARD, "is missing"),
    "shard empty": (lambda data: (data / SHARD).write_bytes(b""), SHARD, "has changed"),
    "shard cut off": (lambda data: cut_to(data / SHARD, 9000), SHARD, "has changed"),
    "shard a folder": (lambda data: a_folder(data / SHARD), SHARD, "has changed"),
    "indexes gone": (
        lambda data: [(data / name).unlink() for name in (INDEX, VAL_INDEX)],
        "no class folders",
    ),
    "shard numbers too large": (
        lambda data: change(data / INDEX, shard=lambda shard: shard + 9),
        "shard out of range",
    ),
    "beyond its end": (
        lambda data: change(data / INDEX, offset=lambda offset: offset + 10**9),
        *(SHARD, "has changed"),
    ),
    "before its beginning": (
        lambda data: change(data / INDEX, offset=lambda offset: -offset),
        "train",
    ),
}


def cut_to(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize("what", SHARDS)
def test_shards_that_do_not_fit_their_index(packed, here, what):
    harm, *named = SHARDS[what]
    harm(packed)
    ended = train(packed)
    assert_ends(ended, 2, *named)


def test_a_shard_overwritten_in_the_middle(packed):
    path = packed / SHARD
    data = path.read_bytes()
    path.write_bytes(data[:3000] + b"?" * 3000 + data[6000:])
    ended = train(packed)
    assert_ends(ended, 2, "cannot read image", f"{path}: ", ".JPEG", "--on-bad-image skip")
