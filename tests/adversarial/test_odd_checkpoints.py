"""Checkpoints: no files of ours, with something missing, of another run, or of no real step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.launching import JOB, TINY, launch
from support.odd_inputs import Ended, assert_ends, call

import train_imagenet

NAN = float("nan")
Change = Callable[[dict[str, Any]], object]


def train(data: Path, *options: object) -> Ended:
    return call(train_imagenet.main, *TINY, "--data", data, "--output", "new", *options)


class Evil:
    def __reduce__(self):
        return os.system, ("touch written",)


def zipped(path: Path) -> None:
    shutil.make_archive("some", "zip", path.parent)
    Path("some.zip").rename(path)


def flipped(path: Path, whole: bytes) -> None:
    data = bytearray(whole)
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


# What odd.pt becomes, given the bytes of a checkpoint; and what the line says beside its name.
FILES: dict[str, tuple] = {
    "nothing": (lambda path, whole: None, "no checkpoint"),
    "empty": (lambda path, whole: path.touch(), "damaged or no checkpoint"),
    "text": (lambda path, whole: path.write_text("epoch 3"), "damaged or no checkpoint"),
    "a folder": (lambda path, whole: path.mkdir(), "checkpoint"),
    "a link to itself": (lambda path, whole: path.symlink_to(path), "symbolic links"),
    "a link to nothing": (lambda path, whole: path.symlink_to("none"), "no checkpoint"),
    "a device": (lambda path, whole: path.symlink_to("/dev/null"), "damaged or no checkpoint"),
    "cut off": (lambda path, whole: path.write_bytes(whole[: len(whole) // 2]), "damaged"),
    "without its end": (lambda path, whole: path.write_bytes(whole[:-1]), "damaged"),
    "a bit flipped": (flipped, "damaged"),
    "another zip": (lambda path, whole: zipped(path), "damaged or no checkpoint"),
    "code": (lambda path, whole: torch.save({"format": 1, "step": Evil()}, path), "damaged"),
    "an old pickle": (
        lambda path, whole: torch.save({}, path, _use_new_zipfile_serialization=False),
        "damaged or no checkpoint",
    ),
    "a list": (lambda path, whole: torch.save([1, 2], path), "not a checkpoint of this program"),
    "weights alone": (
        lambda path, whole: torch.save({"fc.weight": torch.ones(2)}, path),
        "not a checkpoint of this program",
    ),
    "of the future": (lambda path, whole: torch.save({"format": 2}, path), "format 1"),
    "format text": (lambda path, whole: torch.save({"format": "1"}, path), "format 1"),
    "format alone": (lambda path, whole: torch.save({"format": 1}, path), "step"),
}


@pytest.mark.parametrize("option", ["--resume", "--eval-only"])
@pytest.mark.parametrize("what", FILES)
def test_files_that_are_no_checkpoint(run, tiny_data, here, what, option):
    write, *named = FILES[what]
    path = here / "odd.pt"
    write(path, (run / "checkpoints/best.pt").read_bytes())
    assert_ends(train(tiny_data, option, path), 2, str(path), *named)
    assert not (here / "written").exists()
    assert not (here / "new" / "metrics.jsonl").exists()


@pytest.fixture
def changed(run, here) -> Callable[[Change], Path]:
    """Writes the run's last checkpoint, changed, as odd.pt."""

    def write(change: Change) -> Path:
        state = torch.load(run / "checkpoints/checkpoint-00000015.pt", weights_only=True)
        change(state)
        torch.save(state, here / "odd.pt")
        return here / "odd.pt"

    return write


def without(*names: str) -> Change:
    """Leaves out an entry, given by the names that lead to it."""

    def change(state: dict[str, Any]) -> None:
        for name in names[:-1]:
            state = state[name]
        del state[names[-1]]

    return change


def put(*path_and_value: Any) -> Change:
    """Sets an entry, given by the names that lead to it, and its value."""
    *names, last, value = path_and_value

    def change(state: dict[str, Any]) -> None:
        for name in names:
            state = state[name]
        state[last] = value

    return change


# What is not as it should be in the weights, and what the line says beside the checkpoint's name.
WEIGHTS: dict[str, tuple] = {
    "without fc": (without("model", "fc.weight"), "fc.weight"),
    "no weights": (put("model", {}), "Missing"),
    "weights None": (put("model", None), ""),
    "a list of weights": (put("model", [1, 2]), ""),
    "a weight is a number": (put("model", "fc.bias", 3), "fc.bias"),
    "one weight more": (put("model", "head.weight", torch.ones(2)), "head.weight"),
    "other shape": (put("model", "fc.bias", torch.ones(5)), "fc.bias"),
    "no experiment": (without("experiment"), "experiment"),
    "experiment is text": (put("experiment", "paper"), ""),
    "experiment without model": (without("experiment", "model"), ""),
    "other model": (put("experiment", "model", "resnet20"), "resnet20 with 3 classes", "--model"),
    "other classes": (put("num_classes", 1000), "resnet8 with 1000 classes", "--data"),
    "classes text": (put("num_classes", "three"), "three classes"),
}


@pytest.mark.parametrize("option", ["--resume", "--eval-only"])
@pytest.mark.parametrize("what", WEIGHTS)
def test_weights_that_do_not_fit(changed, tiny_data, what, option):
    change, *named = WEIGHTS[what]
    path = changed(change)
    assert_ends(train(tiny_data, option, path), 2, str(path), *named)


# What is not as it should be in the state of training.
STATES: dict[str, tuple] = {
    "step beyond its epoch": (put("progress", "step", 10**6), "step 1000000"),
    "step before its epoch": (put("progress", "step", 1), "step 1"),
    "step negative": (put("progress", "step", -1), "step"),
    "step text": (put("progress", "step", "fifteen"), "step"),
    "step None": (put("progress", "step", None), "step"),
    "step not a number": (put("progress", "step", NAN), "step"),
    "no step": (without("step"), "step"),
    "errors are text": (put("progress", "top1_errors", "good"), ""),
    "errors None": (put("progress", "top1_errors", None), ""),
    "an error is text": (put("progress", "top1_errors", ["good", "better"]), ""),
    "no progress": (without("progress"), "progress"),
    "progress None": (put("progress", None), "progress"),
    "progress of the future": (put("progress", "sleep", 8), "sleep"),
    "no optimizer": (without("optimizer"), "optimizer"),
    "empty optimizer": (put("optimizer", {}), ""),
    "optimizer of another model": (put("optimizer", "param_groups", []), "group"),
    "momentum is text": (put("optimizer", "state", 0, "momentum_buffer", "fast"), ""),
    "no number of images": (without("train_images"), "train_images"),
    "other number of images": (put("train_images", 29), "trained on 29 images", "--data"),
    "other images": (put("train_digest", "0123"), "other images", "--data"),
    "order of the future": (put("order", 99), "version 99", "--output"),
    "other seed": (put("experiment", "seed", 7), "--seed was 7, now 1"),
    "other decay": (put("experiment", "decay_epochs", [3]), "--decay-epochs was [3]"),
    "other k": (put("experiment", "workers", 3), "3"),
    "k is text": (put("experiment", "workers", "many"), "many"),
    "epochs are text": (put("experiment", "decay", ["step"]), "--decay"),
}


@pytest.mark.parametrize("what", STATES)
def test_states_that_training_cannot_go_on_from(changed, tiny_data, here, what):
    change, *named = STATES[what]
    path = changed(change)
    assert_ends(train(tiny_data, "--resume", path, "--epochs", 3), 2, str(path), *named)
    assert not (here / "new" / "checkpoints").exists()


def test_momentum_of_another_shape(changed, tiny_data):
    """In a process of its own: PyTorch's fused update would read past its end."""
    path = changed(put("optimizer", "state", 0, "momentum_buffer", torch.ones(7)))
    given = ("--data", tiny_data, "--output", "new", "--resume", path, "--epochs", 3)
    ended = launch([JOB, *TINY, *map(str, given)], by="python")
    assert_ends(Ended(ended.code, "", ended.output), 2, str(path))


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_no_figure_is_told_of_weights_that_are_not_finite(changed, tiny_data, value):
    path = changed(lambda state: state["model"]["fc.bias"].fill_(value))
    assert_ends(train(tiny_data, "--eval-only", path), 2, str(path), "not finite", "fc.bias")
    ended = train(tiny_data, "--resume", path, "--epochs", 3)
    assert_ends(ended, 2, "not finite")


# What lies among the checkpoints of a run that goes on, and what is said of it.
AMONG: dict[str, tuple] = {
    "a newer one cut off": (
        lambda folder: (folder / "checkpoint-00000099.pt").write_bytes(b"PK\3\4"),
        *("checkpoint-00000099.pt is damaged: passed over", "00000015.pt, step 15"),
    ),
    "a newer one of the future": (
        lambda folder: torch.save({"format": 2}, folder / "checkpoint-00000099.pt"),
        *("checkpoint-00000099.pt", "passed over", "step 15"),
    ),
    "a folder of such a name": (
        lambda folder: (folder / "checkpoint-00000099.pt").mkdir(),
        *("checkpoint-00000099.pt", "passed over", "step 15"),
    ),
    "a link to nothing": (
        lambda folder: (folder / "checkpoint-00000099.pt").symlink_to("none"),
        *("checkpoint-00000099.pt", "passed over", "step 15"),
    ),
    "a number of many digits": (
        lambda folder: (folder / f"checkpoint-{'9' * 40}.pt").touch(),
        *("passed over", "step 15"),
    ),
    "another file": (lambda folder: (folder / "checkpoint-last.pt").touch(), "step 15"),
    "half-written": (lambda folder: (folder / "checkpoint-00000099.tmp").touch(), "step 15"),
    "no best": (lambda folder: (folder / "best.pt").unlink(), "step 15"),
    "only older ones": (lambda folder: (folder / "checkpoint-00000015.pt").unlink(), "step 8"),
}


@pytest.mark.parametrize("what", AMONG)
def test_a_run_goes_on_all_the_same(run, tiny_data, what):
    harm, *named = AMONG[what]
    harm(run / "checkpoints")
    ended = train(tiny_data, "--output", run, "--epochs", 3)
    assert_ends(ended, 0, *named, "top-1 error of the last 3 epochs")


def test_a_run_without_a_whole_checkpoint(run, tiny_data):
    for path in (run / "checkpoints").glob("*.pt"):
        path.write_bytes(b"")
    ended = train(tiny_data, "--output", run)
    assert_ends(ended, 2, "every checkpoint of", "is damaged", "remove", "--output")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--seed", 2], ["--seed was 1, now 2", "--output"]),
        (["--decay-epochs", 1], ["--decay-epochs was"]),
        (["--model", "resnet20"], ["is of resnet8", "resnet20"]),
        (["--resume", "never"], ["already holds a run", "--output"]),
        (["--resume", "Auto"], ["no checkpoint Auto"]),
        (["--resume", "odd.pt"], ["no checkpoint odd.pt"]),
        (["--workers", 2], ["--workers was 1, now 2"]),
        (["--data", "digits"], ["10"]),
    ],
)
def test_a_run_that_is_not_to_be_gone_on_with_so(run, tiny_data, options, named):
    before = (run / "metrics.jsonl").read_bytes()
    assert_ends(train(tiny_data, "--output", run, *options), 2, *named)
    assert (run / "metrics.jsonl").read_bytes() == before


def test_another_runs_checkpoint_does_not_break_a_run_off(run, tiny_data, here):
    other = shutil.copy(run / "checkpoints/checkpoint-00000008.pt", here)
    ended = train(tiny_data, "--output", run, "--resume", other)
    assert_ends(ended, 2, "already holds a run", "leave out --resume")


def test_fewer_epochs_than_were_made(run, tiny_data):
    ended = train(tiny_data, "--output", run, "--epochs", 1)
    assert_ends(ended, 0, "already finished")
