#!/usr/bin/env python
"""Train a ResNet by the recipe of Goyal et al. 2017 on any number of Horovod workers.

horovodrun -np 2 python train_imagenet.py                              the demo
horovodrun -np 256 python train_imagenet.py --data /path/to/imagenet   the paper's run
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from dali_pipeline.dataset import check_data, describe, open_dataset
from hvd_utils import failure
from hvd_utils.autotune import autotuning
from hvd_utils.imports import quick_imports
from hvd_utils.settings import Settings, load_settings
from hvd_utils.signals import StopRequest

if TYPE_CHECKING:
    from hvd_utils.elastic import Memory


def main() -> None:
    """Check what was given, then train; with elastic Horovod, anew whenever the workers change."""
    with StopRequest() as stop:
        stop.leave_when_told()  # until a run begins
        settings = load_settings(sys.argv[1:], os.environ)
        check_data(settings)

        # Imported once the settings look good: these take seconds.
        with quick_imports():
            import torch

            from hvd_utils import communication, elastic

        cuda = settings.device != "cpu" and torch.cuda.is_available()
        communication.prepare(settings, cuda=cuda)
        with autotuning(settings):
            elastic.run(lambda memory: job(settings, stop, memory))


def job(settings: Settings, stop: StopRequest, memory: Memory) -> None:
    """Run the job from top to bottom, as section 5.1 of the paper tells it."""
    with quick_imports():
        from dali_pipeline.loader import make_loader
        from dali_pipeline.plan import Plan
        from hvd_utils.averaging import AveragedWeights
        from hvd_utils.batch_norm import normalise_by_worker
        from hvd_utils.communication import bucket_mb
        from hvd_utils.consistency import shared_facts
        from hvd_utils.evaluate import evaluate_only
        from hvd_utils.guard import Guard
        from hvd_utils.models import build_model
        from hvd_utils.not_finite import tracing_not_finite
        from hvd_utils.optimizer import build_optimizer
        from hvd_utils.precision import choose_products, parameter_dtype
        from hvd_utils.run import Run
        from hvd_utils.schedule import first_step, make_schedule
        from hvd_utils.speed import quicken
        from hvd_utils.training import train, validate
        from hvd_utils.workers import default_fuse, passes, share
        from hvd_utils.world import start_world

    # Horovod: P processes, one a GPU, carry the paper's k workers of n images each.
    facts = shared_facts(settings)  # before k is decided, which follows the world
    world = start_world(settings.device, settings.stall_timeout, settings.pin, facts)
    earlier = memory.recall()  # what processes that were here before know; None at a launch
    settings = settings.with_workers(world.size, earlier and earlier["experiment"]["workers"])
    mine = share(settings.workers, world.rank, world.size)
    fuse = settings.fuse_workers or default_fuse(settings.batch_per_worker, world.gpu_memory)
    minibatch = settings.workers * settings.batch_per_worker  # kn

    # Data: one order and one set of crops for the whole job, of which this process reads its part.
    train_set, val_set = open_dataset(settings, world)
    plan = Plan(train_set, val_set, settings, passes(mine, fuse), world.rank, world.size)
    threads = settings.loader_threads or world.cores
    loader = make_loader(settings.loader, plan, device=world.device, threads=threads)

    # Model and optimizer: the rate follows the minibatch, and Horovod sums the gradients.
    num_classes = len(train_set.classes)
    model = build_model(
        settings.model, num_classes, zero_gamma=settings.zero_gamma, seed=settings.seed
    ).to(world.device, parameter_dtype(settings.precision))
    choose_products(settings.precision, world.device)
    if settings.eval_only:
        return evaluate_only(settings, world, model, loader, plan)
    normalise_by_worker(model, plan.passes, settings.batch_per_worker)
    quicken(model, settings, world.device)
    averaged = AveragedWeights(model, settings)
    bucket = bucket_mb(settings, cuda=world.device.type == "cuda")
    optimizer = build_optimizer(model, settings, len(plan.passes), bucket)
    guard = Guard(settings.precision, settings.workers, world.device)
    schedule = make_schedule(settings, len(train_set), minibatch)

    # The run: its folder, its log, and where an earlier launch stopped.
    epoch_ends = [first_step(e + 1, len(train_set), minibatch) for e in range(settings.epochs)]
    run = Run(
        settings, world, model, averaged, optimizer, guard, plan, epoch_ends,
        earlier=earlier, stop=stop, memory=memory,
    )  # fmt: skip
    run.say(describe(settings, train_set, val_set))

    with (
        run,
        closing(loader.training(run.step, run.last_step)) as batches,
        tracing_not_finite(model, loader, plan, schedule, minibatch, world, run.output),
    ):
        together = {
            "precision": settings.precision, "world": world, "agreement": run.agreement,
        }  # fmt: skip
        while run.epoch < settings.epochs:
            steps = range(run.step, min(run.epoch_end, run.last_step))
            for totals in train(
                model,
                optimizer,
                schedule,
                batches,
                steps,
                passes=plan.passes,
                workers=settings.workers,
                minibatch=minibatch,
                seed=settings.seed,
                label_smoothing=settings.label_smoothing,
                guard=guard,
                averaged=averaged,
                at=run.at,
                **together,
            ):
                run.finish_step(totals, schedule(run.step))
            if run.step < run.epoch_end:  # --max-steps
                break
            errors = validate(
                averaged.validated,
                loader.validation(),
                plan.validation_rounds,
                at=run.watchdog.at,
                **together,
            )
            run.heed()
            run.finish_epoch(errors)
        run.end()


if __name__ == "__main__":
    failure.run(main)
