"""The job with slow ranks: ``slowed_job.py SCHEDULE STEP:FILE [the job's own arguments]``.

SCHEDULE is ``FIRST-END:RANK:PART,...``: from step FIRST to END, without it, RANK takes longer over
``data`` or ``compute``. Steps are timed by a clock that goes on only where this program says so,
so that a busy machine changes nothing. Before STEP the job waits until FILE is there.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import horovod.torch as hvd
import torch

import train_imagenet
from hvd_utils.cli.run_main import run_main
from hvd_utils.horovod_backend.flags import SharedFlags
from hvd_utils.timing import stopwatch
from hvd_utils.training import loops

USUAL = {"data": 0.03, "compute": 0.01}  # seconds of a step
LONGER = 0.1
SCHEDULE = [entry.split(":") for entry in sys.argv.pop(1).split(",")]
STOP, _, FILE = sys.argv.pop(1).partition(":")
train, minibatch_loss, receive = loops.train, loops.minibatch_loss, SharedFlags.receive
now = 0.0  # what the clock shows, in seconds
made = 0  # steps


def spend(step: int, part: str) -> None:
    global now
    now += USUAL[part]
    for steps, rank, what in SCHEDULE:
        first, end = map(int, steps.split("-"))
        if first <= step < end and (hvd.rank(), part) == (int(rank), what):
            now += LONGER


def slowed_train(state, schedule, batches, steps, **options):
    def slowed():
        for step in steps:
            while step == int(STOP) and not Path(FILE).exists():
                time.sleep(0.02)
            spend(step, "data")
            yield next(batches)

    yield from train(state, schedule, slowed(), steps, **options)


def slowed_loss(*arguments):  # called once a step: a process has one logical worker
    global made
    spend(made, "compute")
    made += 1
    return minibatch_loss(*arguments)


def receive_from_all(flags):  # the last that a step waits for: the slowest is there now
    global now
    receive(flags)
    now = hvd.allgather(torch.tensor([now], dtype=torch.float64), name="clock").max().item()


loops.train, loops.minibatch_loss = slowed_train, slowed_loss
SharedFlags.receive = receive_from_all
stopwatch.time = SimpleNamespace(perf_counter=lambda: now)

if __name__ == "__main__":
    run_main(train_imagenet.main)
