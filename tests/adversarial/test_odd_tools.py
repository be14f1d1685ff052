"""Compare, requeue, the planner and the preflight: their options and what they read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.launching import TINY
from support.odd_inputs import assert_ends, call, nothing_written, rows, words

import train_imagenet
from hvd_utils.inspect import compare, requeue
from hvd_utils.preflight import __main__ as preflight
from hvd_utils.scaling import __main__ as scaling

COMPARE = [
    ("", "required: RUN"),
    ("/none", "no checkpoint /none: give a run's folder"),
    ("{run} /none", "no checkpoint /none"),
    ("{here}", "no checkpoint in", "give a run's folder"),
    ("{run} {here}/notes.txt", "notes.txt is damaged or no checkpoint"),
    ("{run} {run}/checkpoints/checkpoint-00000008.pt", "steps 8 and 15"),
    ("{run} {here}/momentum.pt", "momentum.pt"),
    ("{run} {here}/optimizer.pt", "optimizer.pt"),
    ("{run} {here}/model.pt", "model.pt"),
    ("{here}/model.pt {run}", "model.pt"),
    ("{run} {here}/format.pt", "format.pt"),
    ("{run} --all", "--all"),
]


@pytest.mark.parametrize(("given", "named"), rows([(row[0], row[1:]) for row in COMPARE]))
def test_compare(run, here, given, named):
    (here / "notes.txt").write_text("none")
    state = torch.load(run / "checkpoints/checkpoint-00000015.pt", weights_only=True)
    torch.save({**state, "model": [1]}, here / "model.pt")
    torch.save({**state, "optimizer": {}}, here / "optimizer.pt")
    torch.save({"format": 1}, here / "format.pt")
    del state["optimizer"]["state"][0]["momentum_buffer"]
    torch.save(state, here / "momentum.pt")
    with nothing_written(here):
        assert_ends(call(compare.main, *words(given, run=run, here=here)), 2, *named)


def test_compare_takes_runs_without_momentum_and_one_run_alone(tiny_data, here):
    for name in ("one", "two"):
        given = ("--data", tiny_data, "--max-steps", 2, "--no-nesterov", "--momentum", 0)
        ended = call(train_imagenet.main, *TINY, *given, "--output", name)
        assert_ends(ended, 0, "trained to step 2")
    assert_ends(call(compare.main, "one"), 0, "at step 2")
    assert_ends(call(compare.main, "one", "two"), 0, "0.0e+00")


REQUEUE = [
    ("", "required: RUN"),
    ("{here}", "required: --code"),
    ("{here} --code", "--code", "expected one argument"),
    ("{here} --code x", "--code", "x"),
    ("{here} --code 1.5", "--code", "1.5"),
    ("{here} --code 1 --max-failures x", "--max-failures", "x"),
    ("{here} --code 1 --max-failures -1", "--max-failures"),
    ("/none --code 1", "/none"),
    ("{here}/notes.txt --code 1", "notes.txt"),
    ("/proc --code 1", "/proc"),
    ("{here}/folder --code 1", "restarts.json", "directory"),
    ("{here}/list --code 1", "metrics.jsonl", "line 1"),
    ("{here}/binary --code 1", "metrics.jsonl", "UTF-8"),
]


@pytest.mark.parametrize(("given", "named"), rows([(row[0], row[1:]) for row in REQUEUE]))
def test_requeue(here, given, named):
    (here / "notes.txt").write_text("none")
    (here / "folder" / "restarts.json").mkdir(parents=True)
    for name, log in {"list": b"[1]\n", "binary": b"\xff\n"}.items():
        (here / name).mkdir()
        (here / name / "metrics.jsonl").write_bytes(log)
    with nothing_written(here):
        assert_ends(call(requeue.main, *words(given, here=here)), 2, *named)


RECORDS = ["", "{", "[1, 2]", "7", "null", "{}", '{"of": "another version"}', "[" * 100_000, "\xff"]
RECORDS += ['{"in_a_row": "two", "step": 0}', '{"in_a_row": 0, "step": null}', '{"step": "nine"}']


@pytest.mark.parametrize("record", [pytest.param(text, id=text[:40]) for text in RECORDS])
def test_requeue_begins_to_count_where_its_record_is_odd(here, record):
    (here / "restarts.json").write_bytes(record.encode("latin-1"))
    ended = call(requeue.main, here, "--code", 1)
    assert_ends(ended, 75, "starting again from the beginning, 1 of 3")


@pytest.mark.parametrize(("code", "reason"), [(-11, "code -11"), (99999, "code 99999")])
def test_requeue_takes_any_number_for_a_code(here, code, reason):
    assert_ends(call(requeue.main, here, f"--code={code}"), 75, reason, "starting again")


SCALING = [
    ("--gpus 0", "--gpus"),
    ("--gpus eight", "--gpus"),
    ("--gpus ''", "--gpus"),
    ("--gpus 8,,16", "--gpus"),
    ("--gpus -8", "--gpus"),
    ("--gpus 1e3", "--gpus"),
    ("--network carrier-pigeon", "no network carrier-pigeon", "ethernet-50"),
    ("--network", "--network"),
    ("--gbit 0", "--gbit"),
    ("--gbit nan", "--gbit"),
    ("--gbit inf", "--gbit"),
    ("--goodput 2", "--goodput"),
    ("--latency-us -1", "--latency-us"),
    ("--links 0", "--links"),
    ("--gpus-per-node 0", "--gpus-per-node"),
    ("--gpu-gbytes -1", "--gpu-gbytes"),
    ("--input-limit 0", "--input-limit"),
    ("--max-minibatch 0", "--max-minibatch"),
    ("--spread 2", "spread", "2.0"),
    ("--spread nan", "--spread"),
    ("--model vgg160", "no model vgg160"),
    ("--model ../resnet50", "no model ../resnet50"),
    ("--seconds 0.1", "--seconds and --images belong together"),
    ("--seconds 0.1 --images 0", "--images"),
    ("--seconds 0.1 --images 8 --step {here}/good.json", "not both"),
    ("--seconds 0.1 --images 8 --fixed-seconds 1", "fixed seconds"),
    ("--backward-share 0", "--backward-share"),
    ("--measured-on 0", "--measured-on"),
    ("--algorithm star", "--algorithm", "ring"),
    ("--fusion-mb -1", "--fusion-mb"),
    ("--cycle-ms inf", "--cycle-ms"),
    ("--precision fp8", "--precision"),
    ("--compression zip", "--compression"),
    ("--network-for 0.9", "--network-for and --at belong together"),
    ("--network-for 2 --at 8", "--network-for"),
    ("--network-for 0.9 --at 0", "--at"),
    ("--stops-paying 0", "--stops-paying"),
    ("--least-efficiency 0", "--least-efficiency"),
    ("--epochs nan", "--epochs"),
    ("--epoch-images 0", "--epoch-images"),
    ("--json /none/such/figures.json", "--json /none/such/figures.json", "no folder"),
    ("--json {here}", "cannot write", "--json"),
    ("--plot /none/such/figures.png", "--plot", "no folder"),
    ("--plot figures.txt", "--plot figures.txt", ".png"),
    ("--plot ''", "--plot"),
    ("--stop-paying", "--stop-paying"),
    ("resnet50", "resnet50"),
    ("--step", "--step"),
    ("--step /none.json", "cannot read --step /none.json"),
    ("--step {here}", "is not the folder of a run"),
]


@pytest.mark.parametrize(("given", "named"), rows([(row[0], row[1:]) for row in SCALING]))
def test_scaling(here, given, named):
    step = {"seconds_per_step": 0.1, "images_per_step": 32}
    (here / "good.json").write_text(json.dumps(step))
    with nothing_written(here):
        assert_ends(call(scaling.main, *words(given, here=here)), 2, *named)


GOOD = {"seconds_per_step": 0.1, "images_per_step": 32}
STEPS: dict[str, Any] = {
    "empty": "",
    "cut off": '{"seconds_per_step": 0.1',
    "no UTF-8": b'{"model": "caf\xe9"}',
    "a list": [1, 2],
    "nothing": {},
    "null": None,
    "seconds alone": {"seconds_per_step": 0.1},
    "seconds text": GOOD | {"seconds_per_step": "quick"},
    "seconds true": GOOD | {"seconds_per_step": True},
    "seconds NaN": GOOD | {"seconds_per_step": float("nan")},
    "seconds infinite": GOOD | {"seconds_per_step": float("inf")},
    "images NaN": GOOD | {"images_per_step": float("nan")},
    "images infinite": GOOD | {"images_per_step": float("inf")},
    "images 0": GOOD | {"images_per_step": 0},
    "gpus NaN": GOOD | {"gpus": float("nan")},
    "model a list": GOOD | {"model": ["resnet50"]},
    "model unknown": GOOD | {"model": "vgg160"},
    "spread text": GOOD | {"spread": "wide"},
    "a huge number": '{"seconds_per_step": 0.1, "images_per_step": 1' + "0" * 400 + "}",
    "a number of many digits": '{"seconds_per_step": 0.1, "images_per_step": ' + "9" * 5000 + "}",
    "too deep": "[" * 100_000,
    "figures a list": {"figures": [1]},
}


@pytest.mark.parametrize("what", STEPS)
def test_scaling_by_a_step_that_is_none(here, what):
    content = STEPS[what]
    content = json.dumps(content) if not isinstance(content, str | bytes) else content
    data = content if isinstance(content, bytes) else content.encode()
    (here / "odd.json").write_bytes(data)
    named = "vgg160" if what == "model unknown" else "odd.json"
    assert_ends(call(scaling.main, "--step", here / "odd.json", "--gpus", "8"), 2, named)


PREFLIGHT = [
    ("--recipe paper", "no images to check", "--data"),
    ("--only none", "no check none", "software"),
    ("--only ''", "no check"),
    ("--skip all", "no check all"),
    ("--only data --skip data", "leave no check"),
    ("--data digits --workers 0", "--workers"),
    ("--data digits --workers two", "--workers"),
    ("--data digits --device gpu", "--device", "cuda"),
    ("--data digits --time-limit 0", "--time-limit"),
    ("--data digits --time-limit 1.5", "--time-limit"),
    ("--data digits --expected-gbit nan", "--expected-gbit"),
    ("--data digits --gpu-rate -1", "--gpu-rate"),
    ("--data digits --recipe none", "no recipe none"),
    ("--data digits --recipe {here}/odd.yaml", "odd.yaml", "UTF-8"),
    ("--data digits --json /none/such/table.json", "--json /none/such/table.json", "no folder"),
    ("--data digits --json {here}", "--json"),
    ("--data digits --quik", "--quik"),
    ("digits", "digits"),
]


@pytest.mark.parametrize(("given", "named"), rows([(row[0], row[1:]) for row in PREFLIGHT]))
def test_preflight(here, given, named, monkeypatch):
    no_start(monkeypatch)
    (here / "odd.yaml").write_bytes(b"model: caf\xe9")
    with nothing_written(here):
        assert_ends(call(preflight.main, *words(given, here=here)), 2, *named)


def no_start(monkeypatch) -> None:
    """What is refused is refused before MPI starts."""
    monkeypatch.setattr(preflight, "start_mpi", lambda limit: pytest.fail("MPI was started"))
    monkeypatch.setattr("hvd_utils.preflight.child.Child", lambda: None)


def test_preflight_speaks_mpi(here, monkeypatch):
    no_start(monkeypatch)
    launched = {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_RANK": "0"}
    ended = call(preflight.main, "--data", "digits", **launched)
    assert_ends(ended, 2, "speaks MPI", "--gloo")


def test_preflight_takes_the_data_of_the_environment(here, monkeypatch):
    no_start(monkeypatch)
    ended = call(preflight.main, "--only", "data", "--recipe", "none", IMAGENET_DIR=str(Path.cwd()))
    assert_ends(ended, 2, "no recipe none")
