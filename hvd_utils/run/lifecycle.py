"""The lifecycle of a run: how a launch begins, advances step by step, and ends."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import torch

from dali_pipeline.sampling.plan import Plan
from hvd_utils.cli import run_main
from hvd_utils.cli.counted import counted
from hvd_utils.cli.errors import BadInput, Stopped
from hvd_utils.config.settings import Settings
from hvd_utils.faults import crash_report
from hvd_utils.faults.folder_lock import FolderLock
from hvd_utils.faults.heartbeat import FINISHING, WAITING
from hvd_utils.faults.signals import StopRequest
from hvd_utils.faults.watchdog import Watchdog
from hvd_utils.horovod_backend.elastic import ElasticState, WorldChanged
from hvd_utils.horovod_backend.flags import SharedFlags
from hvd_utils.horovod_backend.world import World
from hvd_utils.paper.schedule import epoch_ends
from hvd_utils.run import provenance
from hvd_utils.run.folder import checkpoint_path, create_output
from hvd_utils.run.records import Records, how_to_go_on, record_bad_images
from hvd_utils.run.resume import find_state
from hvd_utils.run.state import State, collect_state, restore_state
from hvd_utils.timing.step_timer import StepTimer
from hvd_utils.timing.step_times import StepTimes
from hvd_utils.timing.throughput import Throughput
from hvd_utils.training.metrics import Errors, Window
from hvd_utils.training.train_state import TrainState


class Run:
    """One launch of a run, on every process; only rank 0 writes. A context manager.

    Every rank holds the same state after every step, so the run can resume from any step.
    """

    def __init__(
        self,
        settings: Settings,
        world: World,
        training: TrainState,
        plan: Plan,
        *,
        earlier: State | None,
        stop: StopRequest,
        elastic: ElasticState,
    ) -> None:
        """Open the run's folder and resume the run; collective.

        ``earlier`` is the state that processes of another world kept in their ``elastic`` state.
        Without it, --resume names the checkpoint to resume from. Raises BadInput if the folder
        cannot be written or is in use, or the checkpoint is damaged or of another run.
        """
        self.settings, self.world, self.training = settings, world, training
        self._plan, self._stop = plan, stop
        self._epoch_ends = epoch_ends(settings.epochs, len(plan.train), settings.minibatch)
        self.last_step = min(self._epoch_ends[-1], settings.max_steps or self._epoch_ends[-1])
        self.flags = SharedFlags(
            world.size, stop=lambda: stop.requested, hosts_changed=lambda: elastic.hosts_changed
        )
        self._lock: FolderLock | None = None
        self._records: Records | None = None  # on rank 0
        try:
            self._begin(earlier, elastic)
        except BaseException:
            self._release()  # a rank was lost meanwhile: the next world needs the folder
            raise
        place = (world.rank, world.size, world.host)
        remedy = how_to_go_on(self.output)
        self.watchdog = Watchdog(self.output, *place, settings.stall_timeout, remedy)
        self.watchdog.start()
        crash_report.prepare(self.output, world.rank)
        stop.forget_actions()  # those of the start: from here on a run is saved
        stop.if_ignored(0, self._acknowledge)

    def _begin(self, earlier: State | None, elastic: ElasticState) -> None:
        """Open the folder and restore the state to resume from; collective."""
        settings, world = self.settings, self.world
        self._data_facts = self._plan.data_facts()
        self.output = self._open_folder(earlier)
        run_main.keep_tracebacks_in(self.output)
        facts = provenance.environment(world)
        notes = [f"going on with {counted(world.size, 'process')}"] if earlier else []
        if earlier is None:
            earlier, notes = find_state(settings, world, self.output, self._data_facts)
        self.progress = restore_state(earlier, self.training, self._epoch_ends)
        totals = [self.progress.window_loss, self.progress.window_wrong]
        self._totals = torch.tensor(totals, dtype=torch.float64, device=world.device)
        self._first = self.step
        self._window_rate = Throughput(self.step, settings.minibatch)
        self._epoch_rate = Throughput(self.step, settings.minibatch)
        self._timer = StepTimer(world, settings.workers)
        if world.is_root:
            self._records = Records(self.output, settings, self.progress, self.last_step)
            self._records.begin(world, facts, notes)
        elastic.keep(lambda: {"output": str(self.output), **self.state()})

    def _open_folder(self, earlier: State | None) -> Path:
        output = None
        if self.world.is_root:
            chosen = Path(earlier["output"]) if earlier else self.settings.output
            output = create_output(chosen, self.settings.recipe)
            self._lock = FolderLock(output)
            warning = self._lock.acquire()
            if warning:
                print(warning, flush=True)
            for line in crash_report.traces(output):
                print(f"the last launch: {line}", flush=True)
            crash_report.forget_others(output, self.world.size)
        return self.world.broadcast(output)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *failed: object) -> None:
        """Release the folder; what is being saved is saved."""
        self._stop.forget_actions()
        self.watchdog.stop()
        crash_report.forget(self.output, self.world.rank)
        # A failure under way is the one to report.
        with contextlib.suppress(Exception) if failed[0] else contextlib.nullcontext():
            self._release()

    def _release(self) -> None:
        try:
            if self._records:
                self._records.close()
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

    def print_line(self, text: str) -> None:
        """Show a line, once."""
        if self._records:
            self._records.print_line(text)

    def heartbeat(self, step: int, doing: str) -> None:
        """Tell where this process stands in training: to the watchdog and to the stopwatch."""
        self.watchdog.beat(step, doing)
        self._timer.switch_to(doing)

    def finish_step(self, totals: torch.Tensor, lr: float) -> None:
        """Count a step, log a window that ends here, save if it is time; then check requests."""
        self.progress.step += 1
        self.progress.window_steps += 1
        self._totals += totals
        self.progress.lr = lr
        self._timer.count_step()
        if self._ends_window(self.step):
            self._finish_window()
        if self._records and self._records.checkpoint_due() and self.step < self.epoch_end:
            self.save()
        self.check_requests()
        # All ranks send here, and all receive in the next step, which is always made.
        if self._ends_window(self.step + 1) and self.step < min(self.epoch_end, self.last_step):
            self._timer.send()

    def check_requests(self) -> None:
        """Raise Stopped or WorldChanged, with all saved, if any rank has a request; collective.

        All ranks have the same flags, from the last step's round.
        """
        if self.flags["stop"]:
            self._leave()
        if self.flags["hosts_changed"]:
            raise WorldChanged

    def finish_epoch(self, errors: Errors) -> None:
        """Count and log an epoch with its validation errors, and save it; collective."""
        record_bad_images(self._plan, self.world, self._records)
        if self._records:
            self._records.epoch(errors, self._epoch_rate.images_per_second(self.step))
        self.progress.finish_epoch(errors.top1)
        if self._records:
            self.save(best=self.progress.is_best)
        self._epoch_rate.restart(self.step)
        self._window_rate.restart(self.step)

    def save(self, best: bool = False) -> None:
        """Save a checkpoint in the background (rank 0).

        Not where an update was skipped for good: rank 0 must not fail alone. At the end of the
        window all ranks notice that.
        """
        self.watchdog.beat(self.step, "saving")
        if not self.training.guard.failed:
            self._records.save(self.state(), best=best)

    def state(self) -> dict[str, Any]:
        """Return the run's state after the last whole step; see ``collect_state``."""
        self._read_totals()
        return collect_state(self.settings, self.progress, self.training, self._data_facts)

    def end(self) -> None:
        """Log the end of the run and show its figure; collective."""
        self.training.guard.check()
        if self.progress.epoch_steps + self.progress.window_steps:  # --max-steps, in an epoch
            record_bad_images(self._plan, self.world, self._records)
        if not self._records:
            return
        if self.step > self._first:
            if self.progress.window_steps:  # --max-steps ended in the middle of a window
                self._records.window(self._window(), partial=True)
            self.save()
            self._records.wait_for_checkpoint()
        self._records.end()

    def _read_totals(self) -> None:
        self.training.guard.check()
        self.progress.window_loss, self.progress.window_wrong = self._totals.tolist()

    def _ends_window(self, step: int) -> bool:
        return step % self.settings.log_every == 0 or step == self.epoch_end

    def _window(self, times: StepTimes | None = None) -> Window:
        """Return what is to be logged of the window under way."""
        self._read_totals()
        done = self.progress
        images = done.window_steps * self.settings.minibatch
        return Window(
            step=self.step,
            steps=done.window_steps,
            loss=done.window_loss / done.window_steps,
            top1_error=100 * done.window_wrong / images,
            lr=done.lr,
            seconds=self._window_rate.seconds,
            images_per_second=self._window_rate.images_per_second(self.step),
            timings=times,
            scaling=self.training.guard.facts(),
        )

    def _finish_window(self) -> None:
        self.watchdog.beat(self.step, WAITING)
        times, notes = self._timer.receive(self.step)
        self.watchdog.beat(self.step, FINISHING)
        window = self._window(times)
        for note in notes:
            self.print_line(note)
        if self._records:
            self._records.window(window)
            if self._records.removed:
                self._rescue()
        self.progress.close_window()
        self._totals.zero_()
        self._window_rate.restart(self.step)

    def _rescue(self) -> None:
        """Save the weights where the run's folder was removed, and end the run."""
        self.save()
        self._records.wait_for_checkpoint()
        raise BadInput(
            f"the folder {self.output} was removed while the run went on: its log is lost, the "
            f"weights are not, they are in {checkpoint_path(self.output, self.step)}; "
            f"{how_to_go_on(self.output)}"
        )

    def _acknowledge(self) -> None:
        """Tell the user at once, from a thread: the ranks may be waiting for one that died."""
        if self.world.is_root:
            line = f"told to stop ({self._stop.signal_name}) at step {self.step}: saving after it"
            os.write(2, f"{line}; {how_to_go_on(self.output)}\n".encode(errors="backslashreplace"))

    def _leave(self) -> None:
        """Save, wait until it is on the disk, and raise Stopped on all ranks; collective."""
        self.training.guard.check()
        began = time.monotonic()
        if self._records:
            self.save()
            self._records.wait_for_checkpoint()
            self._records.stop()
        self.watchdog.beat(self.step, WAITING)
        record_bad_images(self._plan, self.world, self._records)
        self.world.sum([0], name="run.saved")  # no rank leaves, ending the job, before
        raise Stopped(
            f"told to stop ({self._stop.signal_name or 'another rank was'}): saved after step "
            f"{self.step} in {time.monotonic() - began:.1f} s; {how_to_go_on(self.output)}"
        )
