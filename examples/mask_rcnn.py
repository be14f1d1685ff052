#!/usr/bin/env python
"""Mask R-CNN from a backbone of this project, on any number of workers (section 5.4, Table 3).

python examples/made_up_coco.py data/shapes
horovodrun -np 2 python examples/mask_rcnn.py --small --data data/shapes     in minutes on a CPU
horovodrun -np 8 python examples/mask_rcnn.py --data COCO --init resnet50.pth     as in the paper

torchvision's Mask R-CNN with a feature pyramid. Batch norms are frozen, and so are the stem and the
first stage where weights are given. Settings are those of He et al. 2017, section 3.1, which the
paper takes over: SGD without Nesterov, momentum 0.9, weight decay 1e-4, 2 images a worker.

The trajectory is the same on any number of processes, but for rounding. Which images, which of them
are mirrored and which regions are sampled follow from seed, step and logical worker. torchvision
normalises a loss over the anchors, regions and masks of the images that go through the model
together. These are one worker's, wherever it runs; the minibatch's loss is the mean of its workers'
losses. So it depends on k and on --batch-per-worker, but not on who carries the k workers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from detection.checkpoints import Checkpoints
from detection.coco_format import Coco
from detection.detector import build_detector
from detection.judging import judge
from detection.options import read_options, schedule
from detection.passes import Pass, on_device, read_passes

from dali_pipeline.loading.prefetch import prefetched
from hvd_utils.cli.counted import counted
from hvd_utils.cli.errors import BadInput, Stopped
from hvd_utils.cli.files import replace_text
from hvd_utils.cli.run_main import run_main
from hvd_utils.config.settings import Settings
from hvd_utils.faults.signals import StopRequest
from hvd_utils.horovod_backend import environment
from hvd_utils.horovod_backend.consistency import code_hash, shared_facts
from hvd_utils.horovod_backend.flags import SharedFlags
from hvd_utils.horovod_backend.gradient_buckets import bucket_mb
from hvd_utils.horovod_backend.world import World, start_world
from hvd_utils.nn.dropout_seeds import seed_random_modules
from hvd_utils.nn.precision import parameter_dtype, set_matmul_precision
from hvd_utils.paper.logical_workers import share
from hvd_utils.training.nonfinite import NonfiniteError
from hvd_utils.training.optimizer import set_rate
from hvd_utils.training.train_state import TrainState

AHEAD = 4  # passes that are read ahead


def main() -> None:
    """Train from where the run stands, then judge the model by the validation pictures."""
    with StopRequest() as stop:
        stop.leave_when_told()  # until training begins
        options, settings = read_options(sys.argv[1:])
        if os.environ.get("HOROVOD_ELASTIC") == "1":
            raise BadInput("this example is not elastic: launch it on a fixed number of processes")
        train_set = Coco(options.data, "train2017", only_with_objects=True)
        val_set = Coco(options.data, "val2017")
        if train_set.categories != val_set.categories:
            raise BadInput(
                f"{train_set.file} has {len(train_set.categories)} categories and {val_set.file} "
                f"{len(val_set.categories)}, or other names: give files of one data set"
            )
        job(options, settings, train_set, val_set, stop)


def job(
    options: argparse.Namespace,
    settings: Settings,
    train_set: Coco,
    val_set: Coco,
    stop: StopRequest,
) -> None:
    """Run the job from top to bottom."""
    # Horovod: P processes carry k workers of n images each.
    environment.prepare(settings, cuda=settings.device != "cpu" and torch.cuda.is_available())
    experiment = {**options.experiment, "annotations": train_set.digest()}
    facts = equal_facts(settings, experiment, val_set)
    world = start_world(settings.device, settings.pin, facts)
    settings = settings.with_workers(world.size)
    mine = share(settings.workers, world.rank, world.size)
    if settings.minibatch > len(train_set):
        raise BadInput(
            f"a minibatch of {settings.minibatch} images is more than the {len(train_set)} with "
            f"objects of {train_set.file}: lower --workers or --batch-per-worker"
        )

    # Model and optimizer: the rate follows the minibatch, and Horovod sums the gradients.
    set_matmul_precision(settings.precision, world.device)
    torch.manual_seed(settings.seed)
    model, told, checksum = build_detector(settings, options, len(train_set.categories))
    settings = settings.with_init(checksum)
    model.to(world.device, parameter_dtype(settings.precision))
    bucket = bucket_mb(settings, cuda=world.device.type == "cuda")
    state = TrainState.build(model, settings, len(mine), world.size, bucket)

    # The run: its folder, and where an earlier launch stopped.
    checkpoints = Checkpoints(settings, experiment, state, world)
    first = checkpoints.resume()
    if world.is_root:
        print(
            f"run: {checkpoints.folder}: Mask R-CNN on {settings.model}, "
            f"{counted(world.size, 'process')} ({world.device.type}), "
            f"{counted(settings.workers, 'worker')} of "
            f"{counted(settings.batch_per_worker, 'image')}\n"
            f"data: {len(train_set)} training images with objects, {len(val_set)} "
            f"validation images, {len(val_set.categories)} categories\n{told}",
            flush=True,
        )
    stop.forget_actions()
    flags = SharedFlags(world.size, stop=lambda: stop.requested)

    rate = schedule(settings.minibatch, options)
    last = min(rate.end, options.max_steps or rate.end)
    batches = prefetched(read_passes(train_set, settings, mine, range(first, last)), AHEAD)
    with closing(batches):
        for step in range(first, last):
            flags.send()
            set_rate(state.optimizer, rate(step))
            loss = train_step(state, batches, step, mine, settings, world)
            flags.receive()
            done = step + 1
            if world.is_root and (done % options.log_every == 0 or done == last):
                print(f"step {done}/{rate.end}  loss {loss:.4f}  lr {rate(step):.5f}", flush=True)
            if flags["stop"] or done == last or done % options.checkpoint_every == 0:
                checkpoints.save(done)
            if flags["stop"]:
                raise Stopped(f"told to stop: saved after step {done} in {checkpoints.folder}")

    stop.leave_when_told()  # all is saved
    precision = judge(model, val_set, world)
    if precision is not None:
        replace_text(checkpoints.folder / "precision.json", json.dumps(precision, indent=1) + "\n")
        print("  ".join(f"{name} {value:.1f} %" for name, value in precision.items()), flush=True)


def equal_facts(settings: Settings, experiment: Mapping[str, Any], val_set: Coco) -> dict[str, Any]:
    """Return what has to be equal on all ranks; each judges a part of the validation pictures."""
    code = code_hash(Path(__file__).parent, ["**/*.py"])
    own = {"examples": code, "validation annotations": val_set.digest()}
    return {**shared_facts(settings), **experiment, **own}


def train_step(
    state: TrainState,
    batches: Iterator[Pass],
    step: int,
    mine: range,
    settings: Settings,
    world: World,
) -> float:
    """Make a step of minibatch SGD and return its loss, the mean of all k workers' losses.

    A worker's loss is the sum of torchvision's five. The regions that it samples are drawn by a
    seed of the worker's own. Raises BadInput where the loss or the gradients are not finite.
    """
    dtype = parameter_dtype(settings.precision)
    loss = torch.zeros((), dtype=torch.float64, device=world.device)
    for worker in mine:
        images, targets = on_device(next(batches), world.device, dtype)
        seed_random_modules(settings.seed, step, worker)
        part = sum(state.model(images, targets).values()) / settings.workers
        part.backward()
        loss += part.detach()
    state.optimizer.synchronize()
    total = torch.from_numpy(world.sum([loss.item()], "loss")).to(world.device)[0]
    try:
        state.guard.update(state.optimizer, step, total)
        state.guard.check()
    except NonfiniteError as error:
        raise BadInput(
            f"loss or gradients of {error} are not finite: lower --rate, or lengthen warmup by "
            "--warmup-images"
        ) from error
    state.optimizer.zero_grad()
    return total.item()


if __name__ == "__main__":
    run_main(main)
