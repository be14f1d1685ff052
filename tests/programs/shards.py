"""One rank of 256, without torch: ``mpirun -np 256 python shards.py`` (see test_256_ranks.py).

Every rank computes, by itself, the images and rates of its own logical worker; rank 0 holds them
against the whole assignment. Prints one line that says what was compared.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from dali_pipeline.sampling.order import images_in_epoch, worker_images
from hvd_utils.paper.logical_workers import share
from hvd_utils.paper.schedule import first_step, make_schedule

IMAGES, N, EPOCHS, SEED = 1_281_167, 32, 90, 7
PAPER = SimpleNamespace(
    reference_rate=0.1, reference_minibatch=256, scaling="linear", warmup="gradual",
    warmup_epochs=5, epochs=90, decay="step", decay_epochs=(30, 60, 80), decay_factor=0.1,
    decay_power=2,
)  # fmt: skip


def give_way() -> None:
    """Let the tests beside go first: in MPI's start 256 ranks spin until the last is there."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):  # Linux shares a busy core among sessions first
        Path("/proc/self/autogroup").write_text("19")


def main() -> None:
    give_way()
    from mpi4py import MPI  # which starts it

    world = MPI.COMM_WORLD
    k, rank = world.size, world.rank
    (worker,) = share(k, rank, k)
    steps = -(-IMAGES // (k * N))  # those that touch the first epoch; the last opens the second
    mine = [
        worker_images(SEED, step, worker, workers=k, batch=N, num_images=IMAGES)
        for step in range(steps)
    ]
    epochs, ids = (np.stack(part).astype(np.int32) for part in zip(*mine, strict=True))
    everyone = np.empty((2, k, steps, N), np.int32) if rank == 0 else None
    for part, values in enumerate((epochs, ids)):
        wait_for(world.Igather(values, everyone[part] if rank == 0 else None))

    total = first_step(EPOCHS, IMAGES, k * N)
    schedule = make_schedule(PAPER, IMAGES, k * N)
    rates = np.array([schedule(step) for step in range(total)])
    own = np.frombuffer(sha256(rates.tobytes()).digest(), np.uint8)
    digests = np.empty((k, len(own)), np.uint8) if rank == 0 else None
    wait_for(world.Igather(own, digests))
    if rank == 0:
        check_images(*everyone, steps, k)
        assert (digests == digests[0]).all()  # to the bit, at each step
        assert (rates[0], rates.max()) == (0.1, 0.1 * k * N / 256)
        print(f"{k} ranks: {IMAGES} images once each, {total} rates agree")


def wait_for(request) -> None:
    """Sleep until it is done: 256 ranks that spin leave nothing to the tests beside them."""
    while not request.Test():
        time.sleep(0.1)


def check_images(epochs: np.ndarray, ids: np.ndarray, steps: int, k: int) -> None:
    """Disjoint, complete, and what one process computes for all k workers at once."""
    first = ids[epochs == 0]
    assert len(first) == IMAGES
    assert np.array_equal(np.sort(first), np.arange(IMAGES))
    remainder = steps * k * N - IMAGES  # opens the next epoch
    assert (epochs == 1).sum() == remainder
    places = np.arange(IMAGES)
    orders = np.concatenate([images_in_epoch(SEED, epoch, places, IMAGES) for epoch in (0, 1)])
    expected = orders[: steps * k * N].reshape(steps, k, N).transpose(1, 0, 2)
    assert np.array_equal(ids, expected)


if __name__ == "__main__":
    sys.exit(main())
