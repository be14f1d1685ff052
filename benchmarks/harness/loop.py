"""The job's own training loop on one process, for as many steps as are asked for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import closing

import torch

from dali_pipeline.dataset.index import Index, synthetic_index
from dali_pipeline.loading.loader import make_loader
from dali_pipeline.sampling.plan import Plan
from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend.flags import SharedFlags
from hvd_utils.horovod_backend.world import World
from hvd_utils.nn.batch_norm import normalise_by_worker
from hvd_utils.nn.compile import tune_model
from hvd_utils.nn.models import build_model
from hvd_utils.nn.precision import computing, parameter_dtype, set_matmul_precision
from hvd_utils.paper.logical_workers import passes
from hvd_utils.timing.stopwatch import PARTS, make_stopwatch
from hvd_utils.training.loops import train
from hvd_utils.training.optimizer import minibatch_loss
from hvd_utils.training.train_state import TrainState

ENDLESS = 1_000_000  # steps
CLASSES = 1000


def wait(device: torch.device) -> None:
    """Wait until a GPU has done what is queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Loop:
    """A model in training, step after step. Every worker of ``settings`` is on this process.

    ``splits`` are the indices of training and validation images; none for made-up images.
    """

    def __init__(
        self, settings: Settings, fuse: int, world: World, splits: tuple[Index, Index] | None = None
    ) -> None:
        made_up = synthetic_index(settings.synthetic_images, CLASSES)
        self._settings, self._world = settings, world
        self._parts = passes(range(settings.workers), fuse)
        train, val = splits or (made_up, made_up)
        plan = Plan(train, val, settings, self._parts, 0, 1)
        self._loader = make_loader(
            settings.loader,
            plan,
            device=world.device,
            threads=settings.loader_threads or world.cores,
        )
        self.model = build_model(settings.model, CLASSES, zero_gamma=True, seed=1)
        self.model.to(world.device, parameter_dtype(settings.precision))
        normalise_by_worker(self.model, self._parts, settings.batch_per_worker)
        tune_model(self.model, settings, world.device)
        self.watch = make_stopwatch(world.device)
        self._steps = self._endless()

    def run(self, steps: int) -> None:
        """Make so many steps more; what is queued on a GPU is done when this returns."""
        self.queue(steps)
        wait(self._world.device)

    def queue(self, steps: int) -> None:
        """Make so many steps more, or on a GPU have them queued."""
        set_matmul_precision(self._settings.precision, self._world.device)
        for _ in range(steps):
            next(self._steps)

    def split(self) -> dict[str, float]:
        """Return the seconds of each part of the steps so far, by name."""
        return dict(zip(PARTS, self.watch.read(), strict=True))

    def forward_and_backward(self, times: int) -> tuple[float, float]:
        """Return the seconds of a forward and of a backward pass by themselves, medians."""
        device, precision = self._world.device, self._settings.precision
        with closing(self._loader.training(0, ENDLESS)) as batches:
            images, labels = next(batches)
        images = images.to(parameter_dtype(precision))
        forward, backward = [], []
        for _ in range(times):
            wait(device)
            began = time.perf_counter()
            with computing(precision, device):
                loss = minibatch_loss(self.model(images), labels, self._settings.minibatch)
            wait(device)
            middle = time.perf_counter()
            torch.autograd.grad(loss, list(self.model.parameters()))
            wait(device)
            forward.append(middle - began)
            backward.append(time.perf_counter() - middle)
        return statistics.median(forward), statistics.median(backward)

    def _endless(self) -> Iterator[torch.Tensor]:
        settings = self._settings
        yield from train(
            TrainState.build(self.model, settings, len(self._parts), 1),
            lambda step: 0.01,
            self._loader.training(0, ENDLESS),
            range(ENDLESS),
            recipe=settings,
            passes=self._parts,
            world=self._world,
            flags=SharedFlags(1),
            heartbeat=lambda step, doing: self.watch.switch_to(doing),
        )
