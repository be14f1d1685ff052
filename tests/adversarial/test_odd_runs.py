"""Folders of runs as status, report, final and the planner find them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.made_up_runs import write_run
from support.odd_inputs import Ended, assert_ends, call, nothing_written, rows, words

from hvd_utils.inspect import compare, final, status
from hvd_utils.report import __main__ as report
from hvd_utils.scaling import __main__ as scaling

TOOLS: dict[str, tuple[Callable[[], None], tuple[str, ...]]] = {
    "status": (status.main, ()),
    "report": (report.main, ("--terminal",)),
    "final": (final.main, ()),
    "scaling": (scaling.main, ("--gpus", "8", "--step")),
}


def look(tool: str, *runs: object) -> Ended:
    main, options = TOOLS[tool]
    given = [*options, *runs] if tool == "scaling" else [*runs, *options]
    return call(main, *given)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("whole") / "run", steps_per_epoch=3, epochs=4)


@pytest.fixture
def run(whole, here) -> Path:
    """A finished run of 4 epochs, made up."""
    return shutil.copytree(whole, here / "run")


def a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("none")


def a_loop(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(path.name)


def empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def log(text: str | bytes) -> Callable[[Path], object]:
    data = text if isinstance(text, bytes) else text.encode()
    return lambda run: (run / "metrics.jsonl").write_bytes(data)


# What is no run at all.
NO_RUNS: dict[str, Callable[[Path], object]] = {
    "nothing": shutil.rmtree,
    "a file": a_file,
    "an empty folder": empty,
    "a link to itself": a_loop,
    "notes alone": lambda run: (empty(run), (run / "notes.txt").touch()),
    "log a folder": lambda run: ((run / "metrics.jsonl").unlink(), (run / "metrics.jsonl").mkdir()),
    "log a link to itself": lambda run: a_loop(run / "metrics.jsonl"),
    "log a list": log("[1]\n"),
    "log numbers": log("1\n2\n"),
    "log null": log("null\n"),
    "log text": log('"event"\n'),
    "log an object": log("{}\n"),
    "log an event of a number": log('{"event": 3}\n'),
    "log no UTF-8": log(b'{"event": "caf\xe9"}\n'),
    "log a picture": log(b"\x89PNG\r\n\x1a\n\xff\xfe\n"),
    "log in UTF-16": log('{"event": "start"}\n'.encode("utf-16")),
    "log too deep": log("[" * 100_000 + "\n"),
}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("what", NO_RUNS)
def test_what_is_no_run(run, here, what, tool):
    if (what, tool) == ("a file", "scaling"):
        pytest.skip("which takes files")
    NO_RUNS[what](run)
    with nothing_written(here):
        assert_ends(look(tool, run), 2, "run")


def edit(kind: str, **changes: Any) -> Callable[[Path], object]:
    """Changes all events of a kind; those that become None lose the entry."""

    def change(run: Path) -> None:
        lines = []
        for line in (run / "metrics.jsonl").read_text().splitlines():
            event = json.loads(line)
            if event["event"] == kind:
                event |= changes
                event = {name: value for name, value in event.items() if value is not None}
            lines.append(json.dumps(event) + "\n")
        (run / "metrics.jsonl").write_text("".join(lines))

    return change


# Events that are none of ours, and which tools look at what is wrong.
EVENTS: dict[str, tuple] = {
    "start without processes": (edit("start", processes=None), "status report scaling"),
    "start without hosts": (edit("start", hosts=None), "status"),
    "start without time": (edit("start", time=None), "status report scaling"),
    "start of another time": (edit("start", time="noon"), "status report"),
    "start without minibatch": (edit("start", minibatch=None), "status report scaling"),
    "minibatch text": (edit("start", minibatch="large"), "status report scaling"),
    "processes text": (edit("start", processes="many"), "status report scaling"),
    "steps without loss": (edit("step", loss=None), "status"),
    "loss text": (edit("step", loss="low"), "status report"),
    "step text": (edit("step", step="one"), "status report"),
    "steps without rate": (edit("step", lr=None), "status"),
    "images/s text": (edit("step", images_per_second="quick"), "status report"),
    "split a list": (edit("step", step_split=[1, 2, 3]), "status report"),
    "seconds text": (edit("step", compute_seconds="short"), "scaling"),
    "slow at nothing known": (
        edit("step", slow_rank=1, slow_host="x", slow_at="lunch", slow_ratio=2.0, slow_since=1),
        "status report",
    ),
    "epochs without error": (edit("epoch", val_top1_error=None), "status final"),
    "error text": (edit("epoch", val_top1_error="low"), "status report final"),
    "epochs without number": (edit("epoch", epoch=None), "status report"),
    "epochs without images": (edit("epoch", val_images=None), "report final"),
    "end without time": (edit("end", time=None), "status report"),
    "end without figure": (edit("end", median_top1_error=None), "status"),
}
LOOKED_AT = [(what, tool) for what, (_, tools) in EVENTS.items() for tool in tools.split()]


@pytest.mark.parametrize(("what", "tool"), LOOKED_AT)
def test_events_that_are_none_of_ours(run, here, what, tool):
    """As of another version, or edited by hand: the log is named."""
    EVENTS[what][0](run)
    with nothing_written(here):
        assert_ends(look(tool, run), 2, "metrics.jsonl")


SETTINGS: dict[str, Callable[[Path], object]] = {
    "none": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a list": lambda path: path.write_text("- 1\n"),
    "empty": lambda path: path.write_text(""),
    "no YAML": lambda path: path.write_text("epochs: [1"),
    "a date that is none": lambda path: path.write_text("data: 2026-02-30"),
    "no UTF-8": lambda path: path.write_bytes(b"data: caf\xe9"),
    "of another version": lambda path: path.write_text("epochs: ninety"),
}


@pytest.mark.parametrize("tool", ["final", "report"])
@pytest.mark.parametrize("what", SETTINGS)
def test_settings_that_are_none(run, here, what, tool):
    SETTINGS[what](run / "settings.yaml")
    with nothing_written(here):
        assert_ends(look(tool, run), 2, "settings.yaml")


@pytest.mark.parametrize("what", SETTINGS)
def test_status_does_without_settings(run, what):
    SETTINGS[what](run / "settings.yaml")
    assert_ends(look("status", run), 0, "finished", "top-1 error")  # a long name is wrapped


def unfinished(change: Callable[[Path], object]) -> Callable[[Path], object]:
    """Before ``change``, take the last line, which is the end, from the log."""

    def harm(run: Path) -> None:
        lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
        (run / "metrics.jsonl").write_text("".join(lines[:-1]))
        change(run)

    return harm


def reports(text: str) -> Callable[[Path], object]:
    return lambda run: ((run / "ranks").mkdir(), (run / "ranks" / "00000.json").write_text(text))


# What status shows all the same.
SHOWN: dict[str, tuple] = {
    "lock a list": (lambda run: (run / "lock").write_text("[1]"), "run"),
    "lock a number": (lambda run: (run / "lock").write_text("7"), "run"),
    "lock without host": (lambda run: (run / "lock").write_text('{"pid": 7}'), "run"),
    "lock no UTF-8": (lambda run: (run / "lock").write_bytes(b"\xff"), "run"),
    "lock a folder": (lambda run: (run / "lock").mkdir(), "run"),
    "lock a link to itself": (lambda run: (run / "lock").symlink_to("lock"), "run"),
    "report a list": (reports("[1]"), "run"),
    "report of another version": (reports('{"rank": 0}'), "run"),
    "report no JSON": (reports("{"), "run"),
    "ranks a file": (lambda run: (run / "ranks").touch(), "run"),
    "checkpoints a file": (lambda run: (run / "checkpoints").touch(), "none yet"),
    "a line being written": (
        lambda run: (run / "metrics.jsonl").open("a").write('{"event": "st'),
        "12 of 12",
    ),
    "NaN": (edit("step", loss=float("nan")), "loss nan"),
    "a line's end in a host's name": (edit("start", hosts={"a\nb": 1}), "1 host"),
    "other events": (
        lambda run: (run / "metrics.jsonl").open("a").write('{"event": "lunch", "time": 1}\n'),
        "12 of 12",
    ),
}


@pytest.mark.parametrize("what", SHOWN)
def test_status_shows_what_it_can(run, what):
    harm, *named = SHOWN[what]
    unfinished(harm)(run)
    assert_ends(look("status", run), 0, "step 12 of 12", *named)


@pytest.mark.parametrize("tool", ["status", "report", "final"])
def test_a_name_that_is_no_utf_8(run, here, tool):
    moved = run.rename(here / os.fsdecode(b"caf\xe9"))
    assert_ends(look(tool, moved), 0)


COMMANDS = {"status": status, "report": report, "final": final}

# A command's options, and what the line says; {run} is a run, {other} one of other settings.
OPTIONS = [
    ("status", "required: RUN"),
    ("status {run} /none", "/none is not the folder of a run"),
    ("status {run} --watch 0", "--watch 0"),
    ("status {run} --watch -1", "--watch"),
    ("status {run} --watch nan", "--watch nan"),
    ("status {run} --watch soon", "--watch", "soon"),
    ("status {run} --wach", "--wach"),
    ("report", "required: RUN"),
    ("report {run} /none", "/none is not the folder of a run"),
    ("report {run} --out {here}", "cannot write", "--out"),
    ("report {run} --out /none/such/page.html", "/none/such/page.html", "--out"),
    ("report {run} --out /proc/page.html", "/proc/page.html", "--out"),
    ("report {run} --png {here}/file --terminal", "file", "--png"),
    ("report {run} --png /proc/pictures --terminal", "/proc/pictures"),
    ("report {begun}", "has logged no step"),
    ("final", "required: RUN"),
    ("final {begun}", "no run has finished"),
    ("final {run} {run}", "same --seed 1"),
    ("final {run} {other}", "--epochs", "differ in their seed alone"),
    ("final {run} {fewer}", "validated on 50,000 images", "on 360"),
    ("final {run} --json /none/such/figures", "/none/such/figures", "--json"),
    ("final {run} --json {here}", "cannot write", "--json"),
]


@pytest.mark.parametrize(("given", "named"), rows([(row[0], row[1:]) for row in OPTIONS]))
def test_options(run, here, given, named):
    (here / "file").touch()
    begun = write_run(here / "begun", done=0, end=False)
    other = write_run(here / "other", steps_per_epoch=3, epochs=5, seed=2)
    fewer = write_run(here / "fewer", steps_per_epoch=3, epochs=4, seed=2, val_images=360)
    command, *options = words(given, run=run, here=here, begun=begun, other=other, fewer=fewer)
    with nothing_written(here):
        assert_ends(call(COMMANDS[command].main, *options), 2, *named)


def test_compare_is_no_tool_for_logs(run):
    assert_ends(call(compare.main, run, run), 2, "no checkpoint in", str(run))
