"""A small job on elastic Horovod: ``python elastic_toy.py OUTPUT STEPS [DIE]``, alone or launched.

It trains as train_imagenet.py does: k logical workers shared by the processes, each with a batch
norm of its own, Horovod's optimizer summing, one agreement a step, and nothing changed before all
of a step's communication has succeeded. DIE is PLACE@HOST: the process on that host kills itself
before it does anything ("launch"), or in its second world before ("start") or after ("recalled")
the state is recalled.

OUTPUT/HOST.jsonl gets a line for each world that HOST entered and each step it made, OUTPUT/end.pt
the end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import horovod.torch as hvd
import torch
from torch import nn

from hvd_utils.cli.run_main import run_main
from hvd_utils.horovod_backend import elastic
from hvd_utils.paper.logical_workers import share

WORKERS, BATCH, FEATURES, CLASSES = 6, 8, 10, 4
SECONDS_PER_STEP = float(os.environ.get("TOY_SECONDS_PER_STEP", "0"))
HOST = os.environ.get("HOROVOD_HOSTNAME", "alone")


def batch(step: int, worker: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1000 * step + worker)
    images = torch.randn(BATCH, FEATURES, generator=random, dtype=torch.float64)
    return images, torch.randint(CLASSES, (BATCH,), generator=random)


def build_model() -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, CLASSES)
    model = nn.Sequential(*layers).double()
    model[1].momentum = 1.0  # a pass leaves its own statistics; see Toy.step
    return model


class Toy:
    """One world's share of the training."""

    def __init__(self, state: dict | None) -> None:
        self.mine = share(WORKERS, hvd.rank(), hvd.size())
        self.model = build_model()
        self.optimizer = hvd.DistributedOptimizer(
            torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9, nesterov=True),
            named_parameters=self.model.named_parameters(),
            op=hvd.Sum,
            backward_passes_per_step=len(self.mine),
        )
        self.averages, self.loss, self.steps = torch.zeros(32).double(), 0.0, 0
        if state is not None:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.averages, self.loss = state["averages"], state["loss"]
            self.steps = state["step"]

    def state(self) -> dict:
        return {
            "step": self.steps,
            "model": dict(self.model.named_parameters())
            | {n: torch.zeros_like(b) for n, b in self.model.named_buffers()},
            "optimizer": self.optimizer.state_dict(),
            "averages": self.averages,
            "loss": self.loss,
        }

    def step(self, hosts_changed: bool) -> bool:
        """Make one step; return whether any process heard that the hosts have changed."""
        agreement = torch.zeros(2 + len(self.averages)).double()
        agreement[0] = hosts_changed
        norm = self.model[1]
        for worker in self.mine:
            images, labels = batch(self.steps, worker)
            logits = self.model(images)
            loss = nn.functional.cross_entropy(logits, labels, reduction="sum") / WORKERS / BATCH
            loss.backward()
            agreement[1] += loss.item()
            agreement[2:] += torch.cat([norm.running_mean, norm.running_var]) / WORKERS
        agreement = hvd.allreduce(agreement, op=hvd.Sum, name="agreement")
        self.optimizer.synchronize()
        # From here on nothing can fail: the step is made whole.
        with self.optimizer.skip_synchronize():
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.averages = 0.9 * self.averages + 0.1 * agreement[2:]
        self.loss += agreement[1].item()
        self.steps += 1
        return agreement[0] > 0


def main() -> None:
    output, last_step = Path(sys.argv[1]), int(sys.argv[2])
    dies = sys.argv[3] if len(sys.argv) > 3 else ""
    worlds = 0

    def die_if(place: str) -> None:
        if worlds == (0 if place == "launch" else 2) and dies == f"{place}@{HOST}":
            os.kill(os.getpid(), signal.SIGKILL)

    die_if("launch")

    def job(memory: elastic.ElasticState) -> None:
        nonlocal worlds
        worlds += 1
        hvd.init()
        with (output / f"{HOST}.jsonl").open("a") as file:

            def write(event: str, **values: object) -> None:
                facts = {"event": event, "time": time.time(), "pid": os.getpid(), **values}
                file.write(json.dumps(facts) + "\n")
                file.flush()

            die_if("start")
            state = memory.recall()
            die_if("recalled")
            toy = Toy(state)
            memory.keep(toy.state)
            write("world", step=toy.steps, rank=hvd.rank(), size=hvd.size())
            while toy.steps < last_step:
                changed = toy.step(memory.hosts_changed)
                write("step", step=toy.steps, rank=hvd.rank(), size=hvd.size())
                if changed:
                    raise elastic.WorldChanged
                time.sleep(SECONDS_PER_STEP)
            if hvd.rank() == 0:
                torch.save(toy.state(), output / "end.pt")

    elastic.run(job)


if __name__ == "__main__":
    run_main(main)
