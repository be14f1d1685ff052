"""A run: its folder and log, where it stands, and how it begins, goes on and ends."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dali_pipeline.plan import Plan
from hvd_utils import checkpoint, crash, failure, provenance
from hvd_utils.agreement import Agreement
from hvd_utils.averaging import AveragedWeights
from hvd_utils.elastic import Memory, WorldChanged
from hvd_utils.events import RunLog, create_output, final_line, forget_after
from hvd_utils.failure import BadInput, Stopped
from hvd_utils.guard import Guard
from hvd_utils.interval import Timer, parse
from hvd_utils.lock import FolderLock
from hvd_utils.measures import Errors, Window
from hvd_utils.pace import Pace
from hvd_utils.rank_files import FINISHING, WAITING
from hvd_utils.resume import (
    State,
    checkpointed_state,
    named_checkpoint,
    take_over,
    whole_state,
)
from hvd_utils.saver import Saver
from hvd_utils.settings import Settings
from hvd_utils.signals import StopRequest
from hvd_utils.timings import Timings
from hvd_utils.watchdog import Watchdog
from hvd_utils.world import World


class Run:
    """One launch of a run, on every process; only rank 0 logs and saves. A context manager.

    Every rank holds the same state after every step, so any of them could go on from there.
    """

    def __init__(
        self,
        settings: Settings,
        world: World,
        model: nn.Module,
        averaged: AveragedWeights,
        optimizer: torch.optim.Optimizer,
        guard: Guard,
        plan: Plan,
        epoch_ends: Sequence[int],
        *,
        earlier: State | None,
        stop: StopRequest,
        memory: Memory,
    ) -> None:
        """Open the run's folder and go on where it stands; collective.

        ``earlier`` is the state that processes of another world brought along in their ``memory``;
        without it --resume says from which checkpoint to go on. Raises BadInput if the folder
        cannot be written or is in use, or the checkpoint is damaged or of another run.
        """
        self.settings, self.world = settings, world
        self.model, self.averaged = model, averaged
        self.optimizer, self.guard = optimizer, guard
        self._plan, self._epoch_ends = plan, epoch_ends
        self.last_step = min(epoch_ends[-1], settings.max_steps or epoch_ends[-1])
        self._stop = stop
        self.agreement = Agreement(
            world.size,
            stop=lambda: stop.requested,
            hosts_changed=lambda: memory.hosts_changed,
        )
        self._lock: FolderLock | None = None
        self.log: RunLog | None = None
        try:
            self._begin(earlier, memory)
        except BaseException:
            self._let_go()  # a rank was lost meanwhile: who goes on needs the folder
            raise
        self.watchdog = Watchdog(
            self.output,
            world.rank,
            world.size,
            world.host,
            settings.stall_timeout,
            self._how_to_go_on(),
        )
        self.watchdog.start()
        crash.prepare(self.output, world.rank)
        stop.forget_actions()  # those of the start: from here on a run is saved
        stop.if_ignored(0, self._acknowledge)

    def _begin(self, earlier: State | None, memory: Memory) -> None:
        """Open the folder and take over the state to go on from; collective."""
        settings, world = self.settings, self.world
        self._data_facts = self._plan.data_facts()
        self.output = self._open_folder(earlier)
        failure.keep_tracebacks_in(self.output)
        facts = provenance.environment(world)
        notes = [f"going on with {world.size} processes"] if earlier else []
        if earlier is None:
            earlier, notes = checkpointed_state(settings, world, self.output, self._data_facts)
        self.progress = take_over(
            earlier, self.model, self.averaged, self.optimizer, self.guard, self._epoch_ends
        )
        self._totals = torch.tensor(
            [self.progress.window_loss, self.progress.window_wrong],
            dtype=torch.float64,
            device=world.device,
        )
        self._began = self._window_began = self._epoch_began = time.monotonic()
        self._first = self._window_first = self._epoch_first = self.step
        self._pace = Pace(world, settings.workers)
        if world.is_root:
            self._open_log(facts, notes)
        memory.keep(self._state_to_remember)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *failed: object) -> None:
        """Let go of the folder; what is being saved is saved."""
        self._stop.forget_actions()
        self.watchdog.stop()
        crash.forget(self.output, self.world.rank)
        # A failure under way is the one to report.
        with contextlib.suppress(Exception) if failed[0] else contextlib.nullcontext():
            self._let_go()

    def _let_go(self) -> None:
        try:
            if self.log:
                self._saver.finish()
                self.log.close()
        finally:
            if self._lock:
                self._lock.release()

    @property
    def step(self) -> int:
        """Updates made so far."""
        return self.progress.step

    @property
    def epoch(self) -> int:
        """The epoch under way, from 0."""
        return self.progress.epoch

    @property
    def epoch_end(self) -> int:
        """The step at which the epoch under way ends."""
        return self._epoch_ends[self.epoch]

    def say(self, text: str) -> None:
        """Show a line, once."""
        if self.log:
            self.log.say(text)

    def at(self, step: int, doing: str) -> None:
        """Tell where this process stands in training: to the watchdog and to the stopwatch."""
        self.watchdog.at(step, doing)
        self._pace.turn_to(doing)

    def finish_step(self, totals: torch.Tensor, lr: float) -> None:
        """Count a step, log a window that ends here, save if it is time; then see to requests."""
        self.progress.step += 1
        self.progress.window_steps += 1
        self._totals += totals
        self.progress.lr = lr
        self._pace.count_step()
        if self._ends_window(self.step):
            self._finish_window()
        if self.log:
            self._saver.check()
            if self._timer.due(self.step) and self.step < self.epoch_end:
                self.save()
        self.heed()
        # All ranks know this, and each that sends also receives: the next step is always made.
        if self._ends_window(self.step + 1) and self.step < min(self.epoch_end, self.last_step):
            self._pace.send()

    def heed(self) -> None:
        """Raise Stopped or WorldChanged, with all saved, if any rank was asked for it; collective.

        All ranks have the same flags, which they agreed upon in the last step.
        """
        if self.agreement["stop"]:
            self._leave()
        if self.agreement["hosts_changed"]:
            raise WorldChanged

    def finish_epoch(self, errors: Errors) -> None:
        """Count and log an epoch with its validation errors, and save it; collective."""
        self._report_bad_images()
        done = self.progress
        if self.log:
            seconds = time.monotonic() - self._epoch_began
            made = self.step - self._epoch_first
            self.log.epoch(
                epoch=done.epoch,
                step=done.step,
                train_loss=done.epoch_loss / done.epoch_steps,
                errors=errors,
                lr=self.progress.lr,
                images_per_second=made * self._minibatch / seconds,
            )
        done.finish_epoch(errors.top1)
        if self.log:
            self.save(best=done.is_best)
        self._epoch_began, self._epoch_first = time.monotonic(), self.step
        self._window_began, self._window_first = time.monotonic(), self.step

    def save(self, best: bool = False) -> None:
        """Hand a checkpoint of all that the rest of the run depends on to the saver (rank 0).

        Not where an update was left out for good: rank 0 must not fail alone. At the end of the
        window all ranks find it.
        """
        self.watchdog.at(self.step, "saving")
        if self.guard.failed:
            return
        self._saver.save(self.state(), best=best)
        self._timer.done(self.step)

    def state(self) -> dict[str, Any]:
        """Return the run's state after the last whole step; see ``whole_state``."""
        self._read_totals()
        return whole_state(
            self.settings,
            self.progress,
            self.model,
            self.averaged,
            self.optimizer,
            self.guard,
            self._data_facts,
        )

    def end(self) -> None:
        """Log the end of the run and show its figure; collective."""
        self.guard.check()
        if not self.log:
            return
        final = self.progress.final_error()
        if self.step > self._first:
            if self.progress.window_steps:  # --max-steps ended in the middle of a window
                self.log.step(self._window(), self.epoch, partial=True)
            self.save()
            self._saver.finish()
            seconds = time.monotonic() - self._began
            self.say(f"trained to step {self.step} in {seconds:.0f} s, validation included")
            self.log.write(
                "end", step=self.step, epochs=self.epoch, median_top1_error=final, seconds=seconds
            )
        else:
            self.say("this run was already finished: nothing to do")
        self.say(final_line(final, self.epoch))

    @property
    def _minibatch(self) -> int:
        return self.settings.workers * self.settings.batch_per_worker

    def _open_folder(self, earlier: State | None) -> Path:
        output = None
        if self.world.is_root:
            chosen = Path(earlier["output"]) if earlier else self.settings.output
            output = create_output(chosen, self.settings.recipe)
            self._lock = FolderLock(output)
            warning = self._lock.acquire()
            if warning:
                print(warning, flush=True)
            for line in crash.traces(output):
                print(f"the last launch: {line}", flush=True)
        return self.world.broadcast(output)

    def _open_log(self, facts: dict[str, Any], notes: Sequence[str]) -> None:
        forget_after(self.output, self.step, self.epoch)
        provenance.record(self.output, self.settings, facts)
        settings = self.settings
        self.log = log = RunLog(
            self.output, step=self.step, total_steps=self.last_step, epochs=settings.epochs
        )
        self._saver = Saver(
            self.output,
            settings.keep_checkpoints,
            log.say,
            log.write,
            spared=named_checkpoint(settings.resume, self.output),
        )
        self._timer = Timer(parse(settings.checkpoint_every), self.step)
        for note in notes:
            log.say(note)
        log.say(
            f"run: {self.output}: {settings.model}, recipe {Path(settings.recipe).stem}, "
            f"{self.world.size} processes on {len(facts['hosts'])} hosts "
            f"({self.world.device.type}), {settings.workers} workers of "
            f"{settings.batch_per_worker} images, kn = {self._minibatch}"
        )
        if self.step < self.last_step:
            log.write(
                "start",
                step=self.step,
                total_steps=self.last_step,
                epochs=settings.epochs,
                workers=settings.workers,
                minibatch=self._minibatch,
                **{name: fact for name, fact in facts.items() if name != "ranks"},
            )
            log.say(f"if it is interrupted: {self._how_to_go_on()}")

    def _read_totals(self) -> None:
        self.guard.check()
        self.progress.window_loss, self.progress.window_wrong = self._totals.tolist()

    def _ends_window(self, step: int) -> bool:
        return step % self.settings.log_every == 0 or step == self.epoch_end

    def _window(self, timings: Timings | None = None) -> Window:
        """Return what is to be logged of the window under way."""
        self._read_totals()
        done = self.progress
        seconds = time.monotonic() - self._window_began
        made = self.step - self._window_first  # by this launch
        return Window(
            step=self.step,
            steps=done.window_steps,
            loss=done.window_loss / done.window_steps,
            top1_error=100 * done.window_wrong / (done.window_steps * self._minibatch),
            lr=self.progress.lr,
            seconds=seconds,
            images_per_second=made * self._minibatch / seconds,
            timings=timings,
            scaling=self.guard.facts(),
        )

    def _finish_window(self) -> None:
        self.watchdog.at(self.step, WAITING)
        timings, notes = self._pace.receive(self.step)
        self.watchdog.at(self.step, FINISHING)
        window = self._window(timings)
        for note in notes:
            self.say(note)
        if self.log:
            self.log.step(window, self.epoch)
            if self.log.removed:
                self._rescue()
        self.progress.close_window()
        self._totals.zero_()
        self._window_began, self._window_first = time.monotonic(), self.step

    def _report_bad_images(self) -> None:
        if self.settings.on_bad_image != "skip":
            return
        everywhere = self._plan.bad_images(self.world.gather(self._plan.found_bad()))
        if self.log and everywhere:
            self.log.bad_images(self.epoch, self.step, everywhere)

    def _rescue(self) -> None:
        self.save()
        self._saver.finish()
        path = checkpoint.checkpoint_path(self.output, self.step)
        raise BadInput(
            f"the folder {self.output} was removed while the run went on: its log is lost, the "
            f"weights are not, they are in {path}; {self._how_to_go_on()}"
        )

    def _state_to_remember(self) -> dict[str, Any]:
        return {"output": str(self.output), **self.state()}

    def _how_to_go_on(self) -> str:
        return f"the same command with --output {self.output} goes on from the newest checkpoint"

    def _acknowledge(self) -> None:
        """Tell the user at once, from a thread: the ranks may be waiting for one that died."""
        if self.world.is_root:
            line = f"told to stop ({self._stop.signal_name}) at step {self.step}: saving after it"
            os.write(2, f"{line}; {self._how_to_go_on()}\n".encode())

    def _leave(self) -> None:
        """Save, wait until it is on the disk, and raise Stopped on all ranks; collective."""
        self.guard.check()
        began = time.monotonic()
        if self.log:
            self.save()
            self._saver.finish()
            self.log.write("stop", step=self.step)
        self.watchdog.at(self.step, WAITING)
        self.world.sum([0], name="run.saved")  # nobody leaves, ending the job, before
        raise Stopped(
            f"told to stop ({self._stop.signal_name or 'another rank was'}): saved after step "
            f"{self.step} in {time.monotonic() - began:.1f} s; {self._how_to_go_on()}"
        )
