"""Kill a run again and again, at moments drawn at random, start it again, and let it finish."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, product
from pathlib import Path

import psutil
import pytest

from hvd_utils.run.event_log import METRICS, read_events
from hvd_utils.timing.step_times import FIELDS
from support.failures import note_launch
from support.launching import JOB, LAUNCHERS, train
from support.quick_python import forked_for, quick_python, runs

START_LIMIT = 240  # seconds until a launch trains, on a busy machine
GONE_LIMIT = 240  # seconds until nobody is left of a launch that was killed
WRITE_LIMIT = 2  # seconds to wait for a checkpoint that is being written
MOMENT = 0.05  # seconds, more than a step takes: kills fall everywhere in it
SPREAD = 0.6  # of the steps are when all kills are made: none shall find the run at its end

WHOM = ("one rank", "all ranks", "launcher")
WHEN = ("any moment", "while a checkpoint is written")


@dataclass(frozen=True)
class Kill:
    """A kill that was made: of a launch with so many ranks by this launcher."""

    ranks: int
    by: str
    whom: str
    when: str
    step: int  # the last one logged
    half_written: tuple[str, ...]  # what the kill left of checkpoints in the making
    seconds: tuple[float, float]  # from the launch to the kill, and until nobody was left


def run_with_kills(
    options: Sequence[object],
    output: Path,
    launches: Sequence[tuple[int, str]],
    *,
    steps: int,
    seed: int,
) -> list[Kill]:
    """Train ``steps`` steps into ``output``, killing each launch (ranks, launcher) but the last.

    The kills are spread over the steps, so each launch makes some progress. ``options`` are the
    job's, without --output and --max-steps. Fails the test if a launch ends by itself, does not
    train, leaves processes behind, or if the last one does not finish.
    """
    draw = random.Random(seed)
    kills: list[Kill] = []
    arguments = [*map(str, options), "--output", str(output), "--max-steps", str(steps)]
    count = len(launches) - 1
    plan = list(islice(cycle(product(WHOM, WHEN)), count))
    draw.shuffle(plan)
    for number, ((ranks, by), (whom, when)) in enumerate(zip(launches[:-1], plan, strict=True)):
        target = round(SPREAD * steps * (number + draw.random()) / count)
        kill = _launch_and_kill(arguments, output, ranks, by, whom, when, target, draw)
        print(f"kill {number + 1} of {count}: {kill}", flush=True)
        kills.append(kill)
    ranks, by = launches[-1]
    ended = train(*arguments, ranks=ranks, by=by, timeout=START_LIMIT + steps)
    assert ended.code == 0, ended.output
    return kills


def metrics(run: Path) -> list[dict[str, object]]:
    """Return the run's steps and epochs in the order logged, without what tells the time."""
    clocks = ("time", "images_per_second", *FIELDS)
    return [
        {name: value for name, value in event.items() if name not in clocks}
        for event in read_events(run)
        if event["event"] in ("step", "epoch")
    ]


def _launch_and_kill(
    arguments: list[str],
    output: Path,
    ranks: int,
    by: str,
    whom: str,
    when: str,
    target: int,
    draw: random.Random,
) -> Kill:
    console = output.with_suffix(".console")
    command = [] if by == "python" else [*LAUNCHERS[by], str(ranks)]
    # A rank notices that its launcher died by its parent, which of a forked one is the server.
    python = [sys.executable] if whom == "launcher" else quick_python()
    command += [*python, JOB, *arguments]
    note_launch(command, console)
    began = time.time()
    with console.open("wb") as file:
        job = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={k: v for k, v in os.environ.items() if k != "IMAGENET_DIR"},
            start_new_session=True,
        )
    try:
        _wait_for(job, lambda: _step_since(output, began) >= target, START_LIMIT, console)
        victims = _victims(job, output, ranks, whom, draw)
        time.sleep(draw.uniform(0, MOMENT))
        if when == WHEN[1]:
            _wait_for(job, lambda: _unfinished(output), WRITE_LIMIT)
        killed = time.time()
        for victim in victims:
            victim.kill()
        step = _step_since(output, began)
        _wait_for(job, lambda: job.poll() is not None, GONE_LIMIT)
        _wait_for(job, lambda: not ranks_of(output), GONE_LIMIT)
        gone, left = time.time(), ranks_of(output)
        assert job.returncode is not None, f"{by} outlives the death of {whom}"
        assert job.returncode != 0, f"a success, where {whom} was killed: is the run too short?"
        assert not left, f"ranks live on after the death of {whom} under {by}: {left}"
    finally:
        _remove(job, output)
    seconds = round(killed - began, 1), round(gone - killed, 1)
    return Kill(ranks, by, whom, when, step, tuple(_unfinished(output)), seconds)


def _wait_for(
    job: subprocess.Popen,
    happened: Callable[[], object],
    limit: float,
    console: Path | None = None,
) -> None:
    """Wait until something happened, or for ``limit`` seconds; with a console, it must happen."""
    until = time.monotonic() + limit
    while not happened():
        if console is not None and job.poll() is not None:
            pytest.fail(f"ended by itself with code {job.returncode}:\n{_tail(console)}")
        if time.monotonic() > until:
            if console is None:
                return
            pytest.fail(f"does not train after {limit} s:\n{_tail(console)}")
        time.sleep(0.0005 if limit == WRITE_LIMIT else 0.01)


def _tail(console: Path) -> str:
    return console.read_text(errors="replace")[-3000:]


def _step_since(output: Path, began: float) -> int:
    """Return the step of the newest event, -1 if this launch has logged none yet."""
    try:
        with (output / METRICS).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4000))
            lines = [line for line in file.read().split(b"\n")[1:-1] if line]
            newest = json.loads(lines[-1])
    except (OSError, IndexError, json.JSONDecodeError):
        return -1
    return newest["step"] if newest["time"] > began else -1


def _unfinished(output: Path) -> list[str]:
    """Return the names of checkpoints that were begun and not finished."""
    return sorted(path.name for path in (output / "checkpoints").glob("*.tmp"))


def ranks_of(output: Path) -> list[psutil.Process]:
    """Return the processes, wherever they hang, that train into ``output``: no launchers."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if runs(process, JOB) and str(output) in process.cmdline():
                found.append(forked_for(process))
    return found


def _victims(
    job: subprocess.Popen, output: Path, ranks: int, whom: str, draw: random.Random
) -> list[psutil.Process]:
    working = ranks_of(output)
    assert len(working) == ranks, working
    if whom == "launcher":
        return [_launcher(job)]
    draw.shuffle(working)
    return working if whom == "all ranks" else working[:1]


def _launcher(job: subprocess.Popen) -> psutil.Process:
    """Return mpirun where it runs below ``job``, else ``job``: horovodrun becomes a shell."""
    process = psutil.Process(job.pid)
    below = [child for child in process.children() if child.name() in ("mpirun", "prterun")]
    return below[0] if below else process


def _remove(job: subprocess.Popen, output: Path) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(job.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    for rank in ranks_of(output):
        with contextlib.suppress(psutil.NoSuchProcess):
            rank.kill()
    job.kill()
    job.wait()
