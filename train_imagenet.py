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

from dali_pipeline.dataset.open_data import check_data, describe, open_dataset
from hvd_utils.cli.imports import quick_imports
from hvd_utils.cli.ranks import launched_local_rank
from hvd_utils.cli.run_main import run_main
from hvd_utils.config.command_line import load_settings
from hvd_utils.config.settings import Settings
from hvd_utils.faults.signals import StopRequest
from hvd_utils.horovod_backend.autotune import autotuning
from hvd_utils.horovod_backend.node import see_own_gpu_first

if TYPE_CHECKING:
    from hvd_utils.horovod_backend.elastic import ElasticState


def main() -> None:
    """Check what was given, then train; with elastic Horovod, anew whenever the workers change."""
    with StopRequest() as stop:
        stop.leave_when_told()  # until a run begins
        settings = load_settings(sys.argv[1:], os.environ)
        check_data(settings)
        if settings.device != "cpu":
            see_own_gpu_first(launched_local_rank())

        # Imported once the settings are known to be good: these take seconds.
        with quick_imports():
            import torch

            from hvd_utils.horovod_backend import elastic, environment

        cuda = settings.device != "cpu" and torch.cuda.is_available()
        environment.prepare(settings, cuda=cuda)
        with autotuning(settings):
            elastic.run(lambda state: job(settings, stop, state))


def job(settings: Settings, stop: StopRequest, elastic: ElasticState) -> None:
    """Run the job from top to bottom, as section 5.1 of the paper tells it."""
    with quick_imports():
        from dali_pipeline.loading.decoding.choose import decide_decoding
        from dali_pipeline.loading.loader import make_loader
        from dali_pipeline.sampling.plan import Plan
        from hvd_utils.horovod_backend.consistency import shared_facts
        from hvd_utils.horovod_backend.gradient_buckets import bucket_mb
        from hvd_utils.horovod_backend.world import start_world
        from hvd_utils.networks.freezing import freeze
        from hvd_utils.nn.batch_norm import normalise_by_worker
        from hvd_utils.nn.compile import tune_model
        from hvd_utils.nn.models import recipe_model
        from hvd_utils.nn.precision import parameter_dtype, set_matmul_precision
        from hvd_utils.paper.logical_workers import default_fuse, passes, share
        from hvd_utils.paper.schedule import make_schedule
        from hvd_utils.run.lifecycle import Run
        from hvd_utils.run.nonfinite_trace import trace_nonfinite
        from hvd_utils.run.profile import profiled
        from hvd_utils.run.resume import as_begun
        from hvd_utils.trackers.sender import require_trackers
        from hvd_utils.training.loops import train, validate
        from hvd_utils.training.recompute import recompute_statistics
        from hvd_utils.training.train_state import TrainState
        from hvd_utils.weights.evaluate import evaluate_only
        from hvd_utils.weights.initial import start_from

    # Horovod: P processes, one a GPU, carry the paper's k workers of n images each.
    facts = shared_facts(settings)  # before k is decided, which follows the world
    world = start_world(settings.device, settings.pin, facts)
    require_trackers(settings, world)
    earlier = elastic.recall()  # the state of the processes that were here before, if any
    settings = as_begun(settings, world, earlier).with_workers(world.size)
    mine = share(settings.workers, world.rank, world.size)
    fuse = settings.fuse_workers or default_fuse(settings.batch_per_worker, world.gpu_memory)

    # Data: one order and one set of crops for the whole job; this process reads its part.
    train_set, val_set = open_dataset(settings, world)
    folder = earlier["output"] if earlier else settings.output
    settings = decide_decoding(settings, (train_set, val_set), world, world.device, folder)
    plan = Plan(train_set, val_set, settings, passes(mine, fuse), world.rank, world.size)
    threads = settings.loader_threads or world.cores
    loader = make_loader(settings.loader, plan, device=world.device, threads=threads)

    # Model and optimizer: the rate follows the minibatch, and Horovod sums the gradients.
    dtype = parameter_dtype(settings.precision)
    model = recipe_model(settings, len(train_set.classes)).to(world.device, dtype)
    set_matmul_precision(settings.precision, world.device)
    if settings.eval_only:
        return evaluate_only(settings, world, model, loader, plan)
    settings = start_from(settings, model, world)
    freeze(model, settings.freeze)
    normalise_by_worker(model, plan.passes, settings.batch_per_worker)
    tune_model(model, settings, world.device, world.gather)
    bucket = bucket_mb(settings, cuda=world.device.type == "cuda")
    state = TrainState.build(model, settings, len(plan.passes), world.size, bucket)
    schedule = make_schedule(settings, len(train_set), settings.minibatch)

    # The run: its folder, its log, and where an earlier launch stopped.
    run = Run(settings, world, state, plan, earlier=earlier, stop=stop, elastic=elastic)
    run.print_line(describe(settings, train_set, val_set))

    with (
        run,
        closing(loader.training(run.step, run.last_step)) as batches,
        trace_nonfinite(model, loader, plan, schedule, world, run.output),
        profiled(run, settings, world) as heartbeat,
    ):
        while run.epoch < settings.epochs:
            steps = range(run.step, min(run.epoch_end, run.last_step))
            for totals in train(
                state,
                schedule,
                batches,
                steps,
                recipe=settings,
                passes=plan.passes,
                world=world,
                flags=run.flags,
                heartbeat=heartbeat,
            ):
                run.finish_step(totals, schedule(run.step))
            if run.step < run.epoch_end:  # --max-steps
                break
            recompute_statistics(
                state,
                loader.training,
                run.step,
                recipe=settings,
                passes=plan.passes,
                world=world,
                flags=run.flags,
                heartbeat=run.watchdog.beat,
            )
            errors = validate(
                state.averaged.validated,
                loader.validation(),
                plan.validation_rounds,
                precision=settings.precision,
                world=world,
                flags=run.flags,
                classes=plan.validated_classes,
                heartbeat=run.watchdog.beat,
            )
            run.check_requests()
            run.finish_epoch(errors)
        run.end()


if __name__ == "__main__":
    run_main(main)
