"""The job with --compile on several ranks: ``horovodrun -np P python compiling_job.py MODEL ...``.

Each rank prints as JSON how often PyTorch's cache of graphs had what it was asked for, and where
the rank computes. MODEL is ``small``, for a CPU, or ``whole``.
"""

from __future__ import annotations

import json
import os
import sys

from torch._dynamo.utils import counters

import train_imagenet
from hvd_utils.cli.run_main import run_main
from hvd_utils.nn import models
from hvd_utils.run import provenance
from hvd_utils.run.lifecycle import Run

end = Run.end


def told(run: Run) -> None:
    """Print what is to be known, then end the run."""
    found = {name: counters["inductor"][f"fxgraph_cache_{name}"] for name in ("hit", "miss")}
    places = provenance.environment(run.world)["ranks"]
    place = {"device": str(run.world.device), "gpus": [place["gpu"] for place in places]}
    found |= {**place, "visible": os.environ.get("CUDA_VISIBLE_DEVICES")}
    print(json.dumps({"rank": run.world.rank, **found}), flush=True)
    end(run)


def main() -> None:
    if sys.argv.pop(1) == "small":
        models.build_model = lambda name, classes, **how: models.SmallResNet(0, classes)
    Run.end = told
    train_imagenet.main()


if __name__ == "__main__":
    run_main(main)
