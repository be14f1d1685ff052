"""One rank of 256 under Slurm: says where it is and keeps its part of an epoch for the test.

Stands for train_imagenet.py, as JOB=tests/programs/places.py. It does not start MPI: 256 ranks that
wait for one another over TCP stop a small machine.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import numpy as np

from dali_pipeline.sampling.order import worker_images

IMAGES, N, SEED = 1_281_167, 32, 7


def main() -> None:
    rank, size, local_rank = (
        int(os.environ[f"OMPI_COMM_WORLD_{name}"]) for name in ("RANK", "SIZE", "LOCAL_RANK")
    )
    output = Path(sys.argv[sys.argv.index("--output") + 1])
    place = {
        "rank": rank,
        "node": socket.gethostname(),
        "local_rank": local_rank,
        "gpu": int(os.environ["CUDA_VISIBLE_DEVICES"].split(",")[local_rank]),
    }
    steps = IMAGES // (size * N)  # whole ones of the first epoch
    mine = [
        worker_images(SEED, step, rank, workers=size, batch=N, num_images=IMAGES)[1]
        for step in range(steps)
    ]
    np.save(output / f"rank-{rank}.npy", np.stack(mine).astype(np.int32))
    print(json.dumps(place), flush=True)
    if rank == 0:
        (output / "metrics.jsonl").write_text('{"event": "end"}\n')


if __name__ == "__main__":
    main()
