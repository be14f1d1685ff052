"""A run: its folder and log, where it stands, and how it begins, goes on and ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import torch
from torch import nn

from dali_pipeline.interface import Loader
from hvd_utils import batch_norm, checkpoint, failure, provenance
from hvd_utils.events import RunLog, create_output, final_line, forget_after
from hvd_utils.failure import BadInput
from hvd_utils.measures import Errors, Window
from hvd_utils.progress import Progress
from hvd_utils.settings import Settings
from hvd_utils.training import validate
from hvd_utils.world import World


@dataclass
class Run:
    """One launch of a run, on every process; only rank 0 has a log. Made by ``begin``."""

    settings: Settings
    world: World
    model: nn.Module
    optimizer: torch.optim.Optimizer
    num_classes: int
    train_images: int
    output: Path
    progress: Progress
    log: RunLog | None
    _began: float = field(default_factory=time.monotonic)
    _last_rate: float = 0.0

    @classmethod
    def begin(
        cls,
        settings: Settings,
        world: World,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        num_classes: int,
        train_images: int,
        last_step: int,
    ) -> Run:
        """Open the run's folder and go on from the checkpoint that --resume names; collective.

        Rank 0 finds and reads the checkpoint and tells the others. Raises BadInput if the folder
        cannot be written or the checkpoint is damaged or of another run.
        """
        output = world.broadcast(
            create_output(settings.output, settings.recipe) if world.is_root else None
        )
        failure.keep_tracebacks_in(output)
        facts = provenance.environment(world)
        state, notes = None, []
        if world.is_root:
            path, state, notes = _find(settings.resume, output)
            if state is not None:
                checkpoint.check_model(state, path, settings.model, num_classes)
                checkpoint.check_experiment(state, path, settings.experiment(), train_images)
        state = world.broadcast(state)
        if state is None:
            hvd.broadcast_parameters(model.state_dict(), root_rank=0)
            progress = Progress()
        else:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            progress = Progress(**state["progress"])

        log = None
        if world.is_root:
            forget_after(output, progress.step)
            provenance.record(output, settings, facts)
            log = RunLog(output, step=progress.step, total_steps=last_step, epochs=settings.epochs)
            for note in notes:
                log.say(note)
            minibatch = settings.workers * settings.batch_per_worker
            log.say(
                f"run: {output}: {settings.model}, recipe {Path(settings.recipe).stem}, "
                f"{world.size} processes on {len(facts['hosts'])} hosts ({world.device.type}), "
                f"{settings.workers} workers of {settings.batch_per_worker} images, "
                f"kn = {minibatch}"
            )
            if progress.step < last_step:
                log.write(
                    "start",
                    step=progress.step,
                    workers=settings.workers,
                    minibatch=minibatch,
                    **facts,
                )
        return cls(
            settings, world, model, optimizer, num_classes, train_images, output, progress, log
        )

    @property
    def step(self) -> int:
        """Updates made so far."""
        return self.progress.step

    @property
    def epoch(self) -> int:
        """The epoch under way, from 0."""
        return self.progress.epoch

    def say(self, text: str) -> None:
        """Show a line, once."""
        if self.log:
            self.log.say(text)

    def report(self, window: Window) -> None:
        """Count and log a report of training."""
        self.progress.add(window)
        self._last_rate = window.lr
        if self.log:
            self.log.step(window, self.epoch)

    def collect_running_averages(self, share: int) -> None:
        """Bring batch norm's running averages together before they are used; collective."""
        batch_norm.collect_running_averages(
            batch_norm.batch_norms(self.model), share, self.settings.workers, self.step
        )

    def finish_epoch(self, errors: Errors) -> None:
        """Count and log an epoch with its validation errors."""
        done = self.progress
        if self.log:
            minibatch = self.settings.workers * self.settings.batch_per_worker
            self.log.epoch(
                epoch=done.epoch,
                step=done.step,
                train_loss=done.epoch_loss / done.epoch_steps,
                errors=errors,
                lr=self._last_rate,
                images_per_second=done.epoch_steps * minibatch / done.epoch_seconds,
            )
        done.finish_epoch(errors.top1)

    def report_bad_images(self, found: Mapping[str, str]) -> None:
        """Log the images that any process passed over so far, by name and reason; collective."""
        if self.settings.on_bad_image != "skip":
            return
        everywhere: dict[str, str] = {}
        for part in self.world.gather(dict(found)):
            everywhere.update(part)
        if self.log and everywhere:
            self.log.bad_images(self.epoch, self.step, everywhere)

    def save(self) -> None:
        """Write a checkpoint of all that the rest of the run depends on."""
        if self.log:
            state = {
                "step": self.step,
                "progress": asdict(self.progress),
                "experiment": self.settings.experiment(),
                "num_classes": self.num_classes,
                "train_images": self.train_images,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            }
            checkpoint.save_checkpoint(self.output, state, keep=self.settings.keep_checkpoints)

    def end(self) -> None:
        """Log the end of the run and show its figure."""
        if not self.log:
            return
        final = self.progress.final_error()
        if self._last_rate:  # steps were made
            seconds = time.monotonic() - self._began
            self.say(f"trained to step {self.step} in {seconds:.0f} s, validation included")
            self.log.write(
                "end", step=self.step, epochs=self.epoch, median_top1_error=final, seconds=seconds
            )
        else:
            self.say("this run was already finished: nothing to do")
        self.log.close()
        self.say(final_line(final, self.epoch))


def evaluate_only(
    settings: Settings, world: World, model: nn.Module, num_classes: int, loader: Loader
) -> None:
    """Show the errors of the checkpoint ``--eval-only`` names."""
    path = settings.eval_only
    state = None
    if world.is_root:
        state = checkpoint.load_checkpoint(path)
        checkpoint.check_model(state, path, settings.model, num_classes)
    state = world.broadcast(state)
    model.load_state_dict(state["model"])
    errors = validate(model, loader.validation(), world)
    if world.is_root:
        print(
            f"{path} (step {state['step']}): top-1 error {errors.top1:.2f} %, "
            f"top-5 error {errors.top5:.2f} %, {errors.images} images",
            flush=True,
        )


def _find(resume: str, output: Path) -> tuple[Path | None, Mapping[str, Any] | None, list[str]]:
    """Return the checkpoint to go on from, its content, and lines to show about the choice."""
    if resume == "never":
        if checkpoint.list_checkpoints(output):
            raise BadInput(
                f"{output} already holds a run: leave out --resume never to go on with it, "
                "or choose another --output"
            )
        return None, None, []
    if resume == "auto":
        path, state, damaged = checkpoint.newest_valid(output)
    else:
        path, damaged = Path(resume), []
        state = checkpoint.load_checkpoint(path)
    notes = [f"checkpoint {file} is damaged: passed over" for file in damaged]
    if state is not None:
        notes.append(f"resuming from {path}, step {state['step']}")
    return path, state, notes
