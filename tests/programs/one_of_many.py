"""One rank of 256: keeps its images of an epoch and the digest of its rates, says where it is.

Stands for train_imagenet.py. It imports no torch and does not start MPI: 256 ranks that wait for
one another would stop a small machine. The test holds what they keep against the whole.
"""

from __future__ import annotations

import json
import os
import socket
import sys
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


def main() -> None:
    rank, size, local_rank = (
        int(os.environ[f"OMPI_COMM_WORLD_{name}"]) for name in ("RANK", "SIZE", "LOCAL_RANK")
    )
    output = Path(sys.argv[sys.argv.index("--output") + 1])
    (worker,) = share(size, rank, size)
    steps = -(-IMAGES // (size * N))  # those that touch the first epoch; the last opens the second
    mine = [
        worker_images(SEED, step, worker, workers=size, batch=N, num_images=IMAGES)
        for step in range(steps)
    ]
    np.save(output / f"rank-{rank}.npy", np.array(mine, np.int32))
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    place = {
        "rank": rank,
        "node": socket.gethostname(),
        "local_rank": local_rank,
        "gpu": int(gpus[local_rank]) if len(gpus) > local_rank and gpus[local_rank] else None,
        "rates": digest(rates(size)),
    }
    (output / f"rank-{rank}.json").write_text(json.dumps(place))
    print(json.dumps(place), flush=True)
    if rank == 0:
        (output / "metrics.jsonl").write_text('{"event": "end"}\n')


def rates(size: int) -> np.ndarray:
    """Return the rate of each step of the paper's run with so many workers."""
    schedule = make_schedule(PAPER, IMAGES, size * N)
    return np.array([schedule(step) for step in range(first_step(EPOCHS, IMAGES, size * N))])


def digest(values: np.ndarray) -> str:
    return sha256(values.tobytes()).hexdigest()


def assert_they_split_an_epoch(output: Path, size: int) -> None:
    """Images once each, as one process orders them for all workers; the paper's rates, to the bit.

    The last minibatch takes what it lacks from the next epoch.
    """
    # by step, then rank, then image
    kept = np.stack([np.load(output / f"rank-{rank}.npy") for rank in range(size)])
    epochs, ids = (kept[:, :, part].swapaxes(0, 1).ravel() for part in (0, 1))
    assert np.array_equal(np.sort(ids[:IMAGES]), np.arange(IMAGES))
    assert np.array_equal(ids[:IMAGES], images_in_epoch(SEED, 0, np.arange(IMAGES), IMAGES))
    more = len(ids) - IMAGES
    assert more == -IMAGES % (size * N)
    assert np.array_equal(ids[IMAGES:], images_in_epoch(SEED, 1, np.arange(more), IMAGES))
    assert np.array_equal(epochs, np.repeat([0, 1], [IMAGES, more]))
    whole = rates(size)
    assert (whole[0], whole.max()) == (0.1, 0.1 * size * N / 256)
    places = [json.loads((output / f"rank-{rank}.json").read_text()) for rank in range(size)]
    assert {place["rates"] for place in places} == {digest(whole)}


if __name__ == "__main__":
    main()
