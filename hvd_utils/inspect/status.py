"""Show the state of runs: ``python -m hvd_utils.status RUN [RUN ...] [--watch [SECONDS]]``.

Reads their folders only, so it may be called from anywhere, while they run and afterwards.
"""

from __future__ import annotations

import contextlib
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from hvd_utils.cli.counted import counted
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.parser import Parser
from hvd_utils.inspect.run_state import (
    DEAD,
    FINISHED,
    RUNNING,
    SILENT,
    STOPPED,
    RunState,
    read_state,
)
from hvd_utils.timing.step_times import bound_by, split_text
from hvd_utils.timing.stragglers import DOING

WIDTH = 80  # columns
LABEL = 13  # of them, for a line's name
BAR = 20  # of them, for the bar


def show(run: RunState) -> str:
    """Return what is known of a run as lines of text, none wider than ``WIDTH``."""
    lines = [f"{run.folder}: {_state(run)}"]
    lines += [f"{name:{LABEL}}{text}" for name, text in _details(run)]
    wrapped = [
        textwrap.wrap(
            line, WIDTH, subsequent_indent=" " * LABEL, break_on_hyphens=False,
            replace_whitespace=False, drop_whitespace=True,
        )
        for line in lines
    ]  # fmt: skip
    return "\n".join(part for line in wrapped for part in line)


def _state(run: RunState) -> str:
    go_on = "the same command goes on from the newest checkpoint"
    silence = run.now - run.last_sign
    if run.state == FINISHED:
        return f"finished {_ago(run.now - run.of('end')[-1]['time'])}"
    if run.state == STOPPED:
        stop = run.of("stop")[-1]
        return f"told to stop, stopped {_ago(run.now - stop['time'])}, all saved; {go_on}"
    if run.state == DEAD:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.last_sign))
        errors = f"; see {', '.join(run.errors)}" if run.errors else ""
        return f"no sign of life since {since} ({_ago(silence)}){errors}; {go_on}"
    holder = run.holder or {}
    where = f" on {holder['host']}, pid {holder['pid']}" if "pid" in holder else ""
    doubt = f", but without a sign of life for {_length(silence)}" if silence > SILENT else ""
    return f"{'running' if run.steps else 'starting'}{where}{doubt}"


def _details(run: RunState) -> Iterator[tuple[str, str]]:
    launch, settings = run.launch, run.settings
    if launch and settings:
        recipe = Path(settings.get("recipe", "?")).stem
        yield (
            "recipe",
            (
                f"{recipe}: {settings.get('model')}, k = {counted(launch['workers'], 'worker')} of "
                f"{settings.get('batch_per_worker')} images, kn = {launch['minibatch']:,}"
            ),
        )
    if launch:
        hosts, devices = counted(len(launch["hosts"]), "host"), ", ".join(launch["devices"])
        yield "processes", f"{launch['processes']} on {hosts}, {devices}"
    if run.state == RUNNING and run.reports:
        yield "ranks", _ranks(run)
    yield "progress", _progress(run)
    if run.steps:
        last = run.steps[-1]
        rate = last["images_per_second"]
        yield "training", f"loss {last['loss']:.4f}, rate {last['lr']:.4g}, {rate:,.0f} images/s"
    if run.of("epoch"):
        yield "validation", _errors(run)
    if run.split:
        yield "step", f"{split_text(run.split)}: bound by {bound_by(run.split)}"
    if run.steps and "slow_rank" in run.steps[-1]:
        yield "slow", _slow(run)
    yield "time", _time(run)
    yield "checkpoints", _checkpoints(run)
    if run.of("bad_images"):
        yield "bad images", f"{run.of('bad_images')[-1]['count']:,}"
    starts = len(run.of("start"))
    if starts > 1:
        yield "restarts", str(starts - 1)


def _progress(run: RunState) -> str:
    done, total = len(run.of("epoch")), run.epochs
    epoch = min(done + 1, total) if total else done + 1
    epochs = f"epoch {epoch}{f' of {total}' if total else ''}"
    if not run.total_steps:
        return f"step {run.step:,}, {epochs}"
    share = min(1.0, run.step / run.total_steps)
    bar = tqdm.format_meter(run.step, run.total_steps, 0, bar_format="{bar}", ncols=BAR, ascii=True)
    return f"[{bar}] {100 * share:.0f} %, step {run.step:,} of {run.total_steps:,}, {epochs}"


def _errors(run: RunState) -> str:
    epochs = run.of("epoch")
    last, best = epochs[-1], min(epochs, key=lambda event: event["val_top1_error"])
    text = (
        f"top-1 error {last['val_top1_error']:.2f} %, top-5 {last['val_top5_error']:.2f} %; "
        f"best {best['val_top1_error']:.2f} % in epoch {best['epoch'] + 1}"
    )
    if run.state == FINISHED:
        final = run.of("end")[-1]["median_top1_error"]
        text += f"; median of the last {min(5, len(epochs))}: {final:.2f} %"
    return text


def _slow(run: RunState) -> str:
    last = run.steps[-1]
    return (
        f"rank {last['slow_rank']} ({last['slow_host']}): {last['slow_ratio']:.1f} times the "
        f"median, at {DOING[last['slow_at']]}, since step {last['slow_since']:,}"
    )


def _ranks(run: RunState) -> str:
    size = run.launch["processes"]
    ages = {rank: run.now - report.changed for rank, report in run.reports.items()}
    silent = sorted((rank for rank in ages if ages[rank] > SILENT), key=lambda rank: -ages[rank])
    text = f"{len(ages) - len(silent)} of {size} heard of"
    if not silent:
        return f"{text}, the last {_ago(max(ages.values()))}"
    first = run.reports[silent[0]]
    return (
        f"{text}; not rank {first.rank} ({first.host}): last {_ago(ages[first.rank])}, "
        f"{first.doing} at step {first.step:,}"
    )


def _time(run: RunState) -> str:
    launch, total = run.elapsed
    text = f"{_clock(total)} elapsed"
    if len(run.of("start")) > 1:
        text += f", {_clock(launch)} of it in the last launch"
    return text + (f", {_clock(run.left)} left" if run.left is not None else "")


def _checkpoints(run: RunState) -> str:
    if not run.checkpoints:
        return "none yet"
    name, when = run.checkpoints[0]
    return f"{name} {_ago(run.now - when)}, {len(run.checkpoints)} kept"


def _clock(seconds: float) -> str:
    return tqdm.format_interval(round(seconds))


def _ago(seconds: float) -> str:
    return f"{_length(seconds)} ago"


def _length(seconds: float) -> str:
    for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def main() -> None:
    """Read the command line and show the runs, once or again and again."""
    parser = Parser(prog="python -m hvd_utils.status", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=5.0,
        metavar="SECONDS",
        help="show it anew every so many seconds (5), until Ctrl-C",
    )
    options = parser.parse_args()
    if options.watch is None:
        print(_show_all(options.runs))
        return
    if not options.watch > 0:
        raise BadInput(f"--watch {options.watch:g}: give seconds greater than 0")
    before, after = ("\033[H\033[2J", "") if sys.stdout.isatty() else ("", "\n")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            print(f"{before}{_show_all(options.runs)}{after}", flush=True)
            time.sleep(options.watch)


def _show_all(runs: Sequence[Path]) -> str:
    return "\n\n".join(show(read_state(run, time.time())) for run in runs)
