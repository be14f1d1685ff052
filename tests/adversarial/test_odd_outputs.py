"""The folder of a run: where none can be, and what may lie in it already."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.launching import TINY
from support.odd_inputs import Ended, assert_ends, call, nothing_written

import train_imagenet


def train(data: Path, output: object, *options: object) -> Ended:
    return call(train_imagenet.main, *TINY, "--data", data, "--output", output, *options)


# What stands where the folder should be, given its path, and what the line says beside that.
PLACES: dict[str, tuple] = {
    "a file": (lambda path: path.write_text("none"), "File exists"),
    "a link to itself": (lambda path: path.symlink_to(path),),
    "a link to nothing": (lambda path: path.symlink_to("none"),),
    "a FIFO": (os.mkfifo, "File exists"),
}


@pytest.mark.parametrize("what", PLACES)
def test_where_something_else_stands(tiny_data, here, what):
    put, *named = PLACES[what]
    put(here / "run")
    path = here / "run"
    refused = ("cannot write to output folder", "--output")
    with nothing_written(here):
        assert_ends(train(tiny_data, path), 2, *refused, f"{path}: ", *named)
        assert_ends(train(tiny_data, path / "below"), 2, *refused, str(path / "below"))


NOWHERE = ["/dev/null/run", "/proc/run", "/sys/kernel/run", "/dev/stdout", "/proc/1", "x" * 300]


@pytest.mark.parametrize("output", NOWHERE)
def test_where_no_folder_can_be(tiny_data, here, output):
    with nothing_written(here):
        assert_ends(train(tiny_data, output), 2, output, "--output")


NAMES = ["with  spaces", "caf\xe9 γ", "a\nb", "%s {x}", "-x", os.fsdecode(b"caf\xe9")]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_fine(tiny_data, here, name):
    given = (*TINY, "--data", tiny_data, "--max-steps", 9, f"--output={name}")
    assert_ends(call(train_imagenet.main, *given), 0, "trained to step 9")
    assert (here / name / "checkpoints" / "best.pt").exists()
    assert_ends(call(train_imagenet.main, *given), 0, "already finished")


def a_folder(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "kept").touch()


def a_file(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.write_text("none")


def a_loop(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def text(content: str, encoding: str = "utf-8") -> Callable[[Path], object]:
    return lambda path: path.write_text(content, encoding)


# What became of which file of a run that is to go on, and what the line says beside its name.
WITHIN: dict[str, tuple] = {
    "log a folder": ("metrics.jsonl", a_folder, "directory"),
    "log a link to itself": ("metrics.jsonl", a_loop, "symbolic links"),
    "log of something else": ("metrics.jsonl", text("[1]\n"), "line 1"),
    "log of numbers": ("metrics.jsonl", text("1\n2\n"), "line 1"),
    "log of other events": ("metrics.jsonl", text('{"event": 3}\n'), "line 1"),
    "log of half an epoch": ("metrics.jsonl", text('{"event": "epoch"}\n')),
    "log with a step of text": ("metrics.jsonl", text('{"event": "step", "step": "one"}\n')),
    "log no UTF-8": ("metrics.jsonl", text('{"event": "caf\xe9"}\n', "latin-1"), "UTF-8"),
    "log in UTF-16": ("metrics.jsonl", text('{"event": "start"}\n', "utf-16"), "UTF-8"),
    "lock a folder": ("lock", a_folder, "cannot lock", "directory"),
    "lock a link to itself": ("lock", a_loop, "cannot lock", "symbolic links"),
    "checkpoints a file": ("checkpoints", a_file, "cannot save"),
    "checkpoints a link to itself": ("checkpoints", a_loop, "checkpoints"),
    "tensorboard a file": ("tensorboard", a_file, ""),
    "settings a folder": ("settings.yaml", a_folder, "cannot write", "directory"),
    "environment a folder": ("environment.json", a_folder, "cannot write", "directory"),
}


@pytest.mark.parametrize("what", WITHIN)
def test_what_lies_in_it(run, tiny_data, what):
    name, harm, *named = WITHIN[what]
    harm(run / name)
    assert_ends(train(tiny_data, run, "--epochs", 3), 2, str(run), name, *named)


# What does no harm there.
HARMLESS: dict[str, tuple] = {
    "ranks a file": ("ranks", a_file),
    "ranks a link to itself": ("ranks", a_loop),
    "lock of a dead job": ("lock", text('{"host": "x", "pid": 1}')),
    "lock of nonsense": ("lock", text("[1]")),
    "log empty": ("metrics.jsonl", text("")),
    "no log": ("metrics.jsonl", lambda path: path.unlink()),
    "log cut off": ("metrics.jsonl", lambda path: path.write_text(path.read_text()[:-9])),
    "no settings": ("settings.yaml", lambda path: path.unlink()),
    "settings of nonsense": ("settings.yaml", text("- [")),
    "restarts a folder": ("restarts.json", lambda path: path.mkdir()),
    "notes": ("notes.txt", text("see there")),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_does_no_harm(run, tiny_data, what):
    name, harm = HARMLESS[what]
    harm(run / name)
    assert_ends(train(tiny_data, run, "--epochs", 3), 0, "top-1 error of the last 3 epochs")


def test_notes_of_where_a_run_began_that_make_no_sense(run, tiny_data):
    named = ("--epochs", 3, "--resume", run / "checkpoints" / "checkpoint-00000008.pt")
    note = run / "begun-from.txt"
    note.mkdir()
    assert_ends(train(tiny_data, run, *named), 2, str(note), "directory")
    note.rmdir()
    note.write_bytes(b"\xff\xfe")
    assert_ends(train(tiny_data, run, *named), 0, "top-1 error of the last 3 epochs")


def test_a_new_folder_is_made_where_none_is_named(tiny_data, here):
    (here / "runs").write_text("none")
    options = (*TINY, "--data", tiny_data, "--max-steps", 2)
    with nothing_written(here):
        ended = call(train_imagenet.main, *options)
        assert_ends(ended, 2, "cannot write to output folder runs/", "--output")
    (here / "runs").unlink()
    assert_ends(call(train_imagenet.main, *options), 0, "trained to step 2")
    assert len(list((here / "runs").glob("demo-*/metrics.jsonl"))) == 1


def test_a_working_folder_that_is_gone(tiny_data, here):
    (here / "gone").mkdir()
    os.chdir(here / "gone")
    (here / "gone").rmdir()
    options = (*TINY, "--data", tiny_data, "--max-steps", 2)
    assert_ends(call(train_imagenet.main, *options), 2, "runs/", "No such file", "--output")
    assert_ends(call(train_imagenet.main, *options, "--output", here / "run"), 0, "to step 2")
