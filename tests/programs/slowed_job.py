"""The job with slow ranks: ``slowed_job.py SCHEDULE [the job's own arguments]``.

SCHEDULE is ``FIRST-END:RANK:PART,...``: from step FIRST to END, without it, RANK takes longer over
``data`` or ``compute``. Reading takes all ranks a while, beside which a busy machine's hiccups are
small.
"""

from __future__ import annotations

import sys
import time

import horovod.torch as hvd

import train_imagenet
from hvd_utils.cli.run_main import run_main
from hvd_utils.training import loops

USUAL, LONGER = 0.03, 0.1  # seconds
SCHEDULE = [entry.split(":") for entry in sys.argv.pop(1).split(",")]
train, minibatch_loss = loops.train, loops.minibatch_loss
made = 0  # steps


def pause(step: int, part: str) -> None:
    for steps, rank, what in SCHEDULE:
        first, end = map(int, steps.split("-"))
        if first <= step < end and (hvd.rank(), part) == (int(rank), what):
            time.sleep(LONGER)


def slowed_train(state, schedule, batches, steps, **options):
    def slowed():
        for step in steps:
            time.sleep(USUAL)
            pause(step, "data")
            yield next(batches)

    yield from train(state, schedule, slowed(), steps, **options)


def slowed_loss(*arguments):  # called once a step: a process has one logical worker
    global made
    pause(made, "compute")
    made += 1
    return minibatch_loss(*arguments)


loops.train, loops.minibatch_loss = slowed_train, slowed_loss

if __name__ == "__main__":
    run_main(train_imagenet.main)
