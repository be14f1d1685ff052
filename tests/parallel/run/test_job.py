"""The job as a user runs it: real ranks, real files, every launcher."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml
from support.images import write_jpegs
from support.kills import metrics
from support.launching import TINY, train

from hvd_utils.inspect.compare import differences, newest
from hvd_utils.run.checkpoint import list_checkpoints, save_checkpoint
from hvd_utils.run.event_log import read_events


def events(run, kind):
    return [event for event in read_events(run) if event["event"] == kind]


def test_the_demo_learns_the_digits_and_leaves_a_whole_record(tmp_path):
    run = tmp_path / "run"
    ended = train("--output", run, ranks=2, quick=False)
    assert ended.code == 0, ended.output
    assert "data: embedded handwritten digits" in ended.output

    epochs = events(run, "epoch")
    assert [epoch["epoch"] for epoch in epochs] == list(range(30))
    assert {epoch["val_images"] for epoch in epochs} == {360}
    (start,), (end,) = events(run, "start"), events(run, "end")
    assert end["median_top1_error"] <= 2.0
    assert f"median top-1 error of the last 5 epochs: {end['median_top1_error']:.2f} %" in (
        ended.output
    )
    steps = [event["step"] for event in events(run, "step")]
    assert steps == sorted(set(steps))
    assert steps[-1] == end["step"] == round(30 * 1437 / 64)
    rates = {event["step"]: event["lr"] for event in events(run, "step")}
    assert min(rates.values()) < 0.001 < 0.19 < max(rates.values()) <= 0.2

    assert (start["processes"], start["minibatch"]) == (2, 64)
    settings = yaml.safe_load((run / "settings.yaml").read_text())
    assert (settings["recipe"], settings["batch_per_worker"], settings["workers"]) == (
        "demo",
        32,
        2,
    )
    facts = json.loads((run / "environment.json").read_text())
    assert sum(facts["hosts"].values()) == 2
    assert facts["packages"]["torch"] == torch.__version__.split("+")[0]
    assert facts["git"] is None or len(facts["git"]["commit"]) == 40
    assert list((run / "tensorboard").glob("events.*"))
    assert len(list_checkpoints(run)) == 3


@pytest.mark.parametrize(
    ("by", "ranks"),
    [
        *(("python", 1), ("mpi", 2), ("gloo", 2), ("mpirun", 2)),
        *(pytest.param(by, 4, marks=pytest.mark.long) for by in ("mpi", "gloo")),
    ],
)
def test_every_launcher_validates_every_image_once(tiny_data, tmp_path, by, ranks):
    """7 images over 4 ranks: shards of 2, 2, 2 and 1."""
    options = ("--data", tiny_data, "--output", tmp_path, *TINY)
    ended = train(*options, by=by, ranks=ranks, quick=ranks > 2)
    assert ended.code == 0, ended.output
    assert [event["val_images"] for event in events(tmp_path, "epoch")] == [7, 7]
    (start,) = events(tmp_path, "start")
    assert start["processes"] == ranks
    assert ended.output.count("done: median top-1 error") == 1  # one rank speaks


@pytest.mark.long
def test_more_ranks_than_validation_images(tmp_path):
    write_jpegs(tmp_path / "data" / "train", {"ant": 10, "bee": 10})
    write_jpegs(tmp_path / "data" / "val", {"ant": 1, "bee": 2})
    ended = train("--data", tmp_path / "data", "--output", tmp_path / "run", *TINY, ranks=4)
    assert ended.code == 0, ended.output
    assert [event["val_images"] for event in events(tmp_path / "run", "epoch")] == [3, 3]


def test_the_same_workers_on_any_number_of_processes_train_the_same_model(tiny_data, tmp_path):
    """k = 3 on 1, 2 and 3 processes, through DALI; in doubles, where only a mistake would show."""
    runs = {}
    for by, ranks in [("python", 1), ("mpi", 2), ("gloo", 3)]:
        run = tmp_path / f"{ranks}"
        options = ("--workers", 3, "--precision", "fp64", "--data", tiny_data, "--output", run)
        ended = train(*options, *TINY, by=by, ranks=ranks)
        assert ended.code == 0, ended.output
        runs[ranks] = newest(run), [event["loss"] for event in events(run, "step")]
    state, losses = runs[1]
    assert state["step"] == 5  # round(2 · 30 / 12)
    for other, other_losses in (runs[2], runs[3]):
        assert max(differences(other, state).values()) < 1e-10
        assert other_losses == pytest.approx(losses, rel=1e-10)
        assert other["progress"]["top1_errors"] == state["progress"]["top1_errors"]


def test_a_run_stopped_and_resumed_ends_as_the_undisturbed_one(tiny_data, tmp_path):
    """In the middle of an epoch, to the bit, each step logged once."""
    options = ("--data", tiny_data, *TINY)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(*options, "--output", whole, ranks=2).code == 0
    assert train(*options, "--output", parts, "--max-steps", 2, ranks=2).code == 0
    assert newest(parts)["step"] == 2
    ended = train(*options, "--output", parts, ranks=2)
    assert ended.code == 0, ended.output
    assert "resuming from" in ended.output
    mine, theirs = newest(parts), newest(whole)
    assert mine["progress"]["top1_errors"] == theirs["progress"]["top1_errors"]
    assert set(differences(mine, theirs).values()) == {0.0}
    assert metrics(parts) == metrics(whole)
    fewer = train(*options, "--output", parts, by="python")  # k is the run's, not the processes'
    assert fewer.code == 0, fewer.output


def test_some_of_the_classes_are_validated_by_a_softmax_over_them(tmp_path):
    """Of 8 trained ones, 2: so each image's class is among the first five, which chance is not."""
    classes = dict.fromkeys(("ant", "bee", "cat", "dog", "eel", "fly", "gnu", "hen"), 2)
    write_jpegs(tmp_path / "data" / "train", classes)
    write_jpegs(tmp_path / "data" / "val", {"hen": 20, "cat": 20})
    ended = train("--data", tmp_path / "data", "--output", tmp_path / "run", *TINY, ranks=2)
    assert ended.code == 0, ended.output
    assert "8 classes, validated by a softmax over 2 of them" in ended.output
    for epoch in events(tmp_path / "run", "epoch"):
        assert (epoch["val_images"], epoch["val_top5_error"]) == (40, 0)


@pytest.mark.long
def test_a_run_from_before_the_computed_order_goes_on_in_its_own(tiny_data, tmp_path):
    """Its checkpoint names no order; the user says nothing, and starts another number of ranks."""
    options = ("--data", tiny_data, *TINY, "--workers", 2, "--precision", "fp64")
    whole, parts, computed = (tmp_path / name for name in ("whole", "parts", "computed"))
    assert train(*options, "--output", whole, "--order", "stored").code == 0
    begun = train(*options, "--output", parts, "--order", "stored", "--max-steps", 3, ranks=2)
    assert begun.code == 0, begun.output
    state = newest(parts)
    assert state["experiment"].pop("order") == "stored"
    save_checkpoint(parts, {k: v for k, v in state.items() if k != "format"}, keep=1)
    ended = train(*options, "--output", parts)
    assert ended.code == 0, ended.output
    assert max(differences(newest(parts), newest(whole)).values()) < 1e-10
    assert train(*options, "--output", computed).code == 0
    assert differences(newest(computed), newest(whole))["weights"] > 1e-4


@pytest.mark.long
def test_torchvision_reads_what_dali_reads(tiny_data, tmp_path):
    """On two ranks, from the middle of an epoch on; the pixels differ by rounding."""
    options = ("--data", tiny_data, "--output", tmp_path, *TINY)
    assert train(*options, "--max-steps", 2, ranks=2).code == 0
    kept = tmp_path.with_name("kept")
    shutil.copytree(tmp_path, kept)
    runs = {}
    for loader, run in (("dali", tmp_path), ("torchvision", kept)):
        ended = train(*options, "--output", run, "--loader", loader, "--epochs", 1, ranks=2)
        assert ended.code == 0, ended.output
        runs[loader] = [event["loss"] for event in events(run, "step")]
    assert runs["torchvision"] == pytest.approx(runs["dali"], rel=0.02)
    assert runs["torchvision"] != runs["dali"]


def test_bad_images_are_passed_over_alike_on_any_number_of_processes(tiny_data, tmp_path):
    """Two that nobody can decode, found by whoever reads them; named at the end of each epoch."""
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    for name in ("train/ant/002.JPEG", "train/cat/009.JPEG", "val/bee/001.JPEG"):
        (data / name).write_bytes((data / name).read_bytes()[:150] + b"\xff\xd9")
    losses = []
    for by, ranks in [("python", 1), ("mpi", 2)]:
        run = tmp_path / str(ranks)
        options = ("--workers", 2, "--data", data, "--output", run, "--on-bad-image", "skip")
        ended = train(*options, *TINY, by=by, ranks=ranks)
        assert ended.code == 0, ended.output
        assert "bad images passed over so far: 3: " in ended.output
        first, last = events(run, "bad_images")
        assert [image.split("/data/")[1] for image in last["images"]] == [
            "train/ant/002.JPEG", "train/cat/009.JPEG", "val/bee/001.JPEG"
        ]  # fmt: skip
        listed = (run / "bad-images.txt").read_text().splitlines()
        assert [line.split("/data/")[1].split(": ")[0] for line in listed] == [
            "train/ant/002.JPEG", "train/cat/009.JPEG", "val/bee/001.JPEG"
        ]  # fmt: skip
        assert first["epoch"] == 0
        assert {event["val_images"] for event in events(run, "epoch")} == {6}
        losses.append([event["loss"] for event in events(run, "step")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_finished_run_is_left_as_it_is_and_evaluated_alone(tiny_data, tmp_path):
    options = ("--data", tiny_data, *TINY)
    assert train(*options, "--output", tmp_path, by="python").code == 0
    before = (tmp_path / "metrics.jsonl").read_bytes()
    again = train(*options, "--output", tmp_path, by="python")
    assert again.code == 0
    assert "already finished" in again.output
    assert "done: median top-1 error" in again.output
    assert (tmp_path / "metrics.jsonl").read_bytes() == before

    last = events(tmp_path, "epoch")[-1]
    checkpoint = list_checkpoints(tmp_path)[0]
    alone = train(*options, "--eval-only", checkpoint, ranks=2)
    assert alone.code == 0, alone.output
    expected = f"top-1 error {last['val_top1_error']:.2f} %, top-5 error"
    assert expected in alone.output
    assert "7 images" in alone.output


def test_synthetic_images_need_no_data(tmp_path):
    options = ("--recipe", "paper", "--loader", "synthetic", "--model", "resnet18")
    small = ("--resolution", 32, "--val-resize", 32, "--batch-per-worker", 8)
    ended = train(*options, *small, "--max-steps", 3, "--output", tmp_path, ranks=2)
    assert ended.code == 0, ended.output
    assert events(tmp_path, "end")[0]["step"] == 3
    assert "no epoch was finished" in ended.output


def test_a_longer_run_goes_on_from_a_finished_one(tiny_data, tmp_path):
    options = ("--data", tiny_data, "--output", tmp_path, *TINY)
    assert train(*options, "--epochs", 1, by="python").code == 0
    assert train(*options, "--epochs", 2, by="python").code == 0
    assert [event["epoch"] for event in events(tmp_path, "epoch")] == [0, 1]
