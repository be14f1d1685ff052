"""The records of a run, on rank 0: log, checkpoints, settings and environment."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dali_pipeline.sampling.plan import Plan
from hvd_utils.cli.counted import counted
from hvd_utils.config.interval import Timer, parse
from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend.world import World
from hvd_utils.nn.compile import skipped_graphs
from hvd_utils.run import provenance
from hvd_utils.run.async_checkpoint import AsyncCheckpointer
from hvd_utils.run.event_log import forget_after
from hvd_utils.run.progress import Progress
from hvd_utils.run.resume import named_checkpoint
from hvd_utils.run.run_log import BAD_IMAGES, RunLog, final_line, list_bad_images
from hvd_utils.trackers.follower import Followers
from hvd_utils.training.metrics import Errors, Window


class Records:
    """The files of one launch, from ``progress`` up to ``last_step``."""

    def __init__(
        self, output: Path, settings: Settings, progress: Progress, last_step: int
    ) -> None:
        """Open the log; drop from it what will be logged again."""
        self._output, self._settings = output, settings
        self._progress, self._last_step = progress, last_step
        forget_after(output, progress.step, progress.epoch)
        if progress.step == 0:  # a new run, of which an earlier one in this folder knows nothing
            (output / BAD_IMAGES).unlink(missing_ok=True)
        self._log = RunLog(
            output, step=progress.step, total_steps=last_step, epochs=settings.epochs
        )
        self.print_line = self._log.print_line
        self._checkpoints = AsyncCheckpointer(
            output,
            settings.keep_checkpoints,
            self._log.print_line,
            self._log.write,
            spared=named_checkpoint(settings.resume, output),
        )
        self._timer = Timer(parse(settings.checkpoint_every), progress.step)
        self._followers: Followers | None = None
        self._first = progress.step
        self._began = time.monotonic()
        self._skipped_graphs = 0

    def begin(self, world: World, facts: dict[str, Any], notes: Sequence[str]) -> None:
        """Record what the launch was made with; show ``notes`` and what will be trained."""
        settings, step = self._settings, self._progress.step
        provenance.record(self._output, settings, facts)
        for note in notes:
            self.print_line(note)
        self.print_line(
            f"run: {self._output}: {settings.model}, recipe {Path(settings.recipe).stem}, "
            f"{counted(world.size, 'process')} on {counted(len(facts['hosts']), 'host')} "
            f"({world.device.type}), {counted(settings.workers, 'worker')} of "
            f"{counted(settings.batch_per_worker, 'image')}, kn = {settings.minibatch:,}"
        )
        if step < self._last_step:
            self._log.write(
                "start",
                step=step,
                total_steps=self._last_step,
                epochs=settings.epochs,
                workers=settings.workers,
                minibatch=settings.minibatch,
                **{name: fact for name, fact in facts.items() if name != "ranks"},
            )
            self.print_line(f"if it is interrupted: {how_to_go_on(self._output)}")
            self._followers = Followers(self._output, settings.track, self.print_line)

    @property
    def removed(self) -> bool:
        """Whether the log was removed during the run."""
        return self._log.removed

    def window(self, window: Window, *, partial: bool = False) -> None:
        """Log a window of steps, ``partial`` where the launch ends in the middle of it."""
        self._log.step(window, self._progress.epoch, partial=partial)
        if self._settings.compile == "cudagraphs":
            self._note_skipped_graphs()
        if self._followers:
            self._followers.check()

    def epoch(self, errors: Errors, images_per_second: float) -> None:
        """Log the epoch that ends here."""
        done = self._progress
        self._log.epoch(
            epoch=done.epoch,
            step=done.step,
            train_loss=done.epoch_loss / done.epoch_steps,
            errors=errors,
            lr=done.lr,
            images_per_second=images_per_second,
        )

    def _note_skipped_graphs(self) -> None:
        """Log how many CUDA graphs were given up so far, where they have become more."""
        count = skipped_graphs()
        if count > self._skipped_graphs:
            self._skipped_graphs = count
            self._log.write("cudagraph_skips", step=self._progress.step, count=count)
            self.print_line(
                f"warning: PyTorch has given up {count} CUDA graphs by step {self._progress.step} "
                "and runs their parts without: TORCH_LOGS=cudagraphs tells why, --compile default "
                "may be quicker"
            )

    def bad_images(self, total: int, named: Mapping[str, str]) -> None:
        """Log how many bad images this launch found, if any; add those ``named`` to the list."""
        if total:
            list_bad_images(self._output / BAD_IMAGES, total, named)
            self._log.bad_images(self._progress.epoch, self._progress.step, total, named)

    def checkpoint_due(self) -> bool:
        """Whether a checkpoint is to be saved now; raises BadInput if the last one failed."""
        self._checkpoints.check()
        return self._timer.due(self._progress.step)

    def save(self, state: Mapping[str, Any], *, best: bool = False) -> None:
        """Hand a checkpoint to the thread that writes it."""
        self._checkpoints.save(state, best=best)
        self._timer.done(self._progress.step)

    def wait_for_checkpoint(self) -> None:
        """Wait until the checkpoint is on the disk; raise BadInput if that failed."""
        self._checkpoints.finish()

    def stop(self) -> None:
        """Log that the launch was asked to stop."""
        self._log.write("stop", step=self._progress.step)
        self._close_trackers()

    def end(self) -> None:
        """Log the end of the run and show its figure."""
        done = self._progress
        final = done.final_error()
        if done.step > self._first:
            seconds = time.monotonic() - self._began
            self.print_line(f"trained to step {done.step} in {seconds:.0f} s, validation included")
            self._log.write(
                "end", step=done.step, epochs=done.epoch, median_top1_error=final, seconds=seconds
            )
            self._close_trackers()
        else:
            self.print_line("this run was already finished: nothing to do")
        self.print_line(final_line(final, done.epoch))

    def _close_trackers(self) -> None:
        if self._followers:
            self._followers.close()

    def close(self) -> None:
        """Wait for the last checkpoint and close the log."""
        if self._followers:
            self._followers.leave()
        self._checkpoints.finish()
        self._log.close()


def record_bad_images(plan: Plan, world: World, records: Records | None) -> None:
    """Record the images that any rank passed over, in ``records`` on rank 0; collective.

    Also where a launch ends in the middle of an epoch, which the next one does not read again.
    """
    if plan.settings.on_bad_image == "skip":
        bad = plan.bad_images(world.gather(plan.found_bad()))
        if records:
            records.bad_images(bad.total, bad.named)


def how_to_go_on(output: Path) -> str:
    """Return how a run that was broken off is continued, as a sentence."""
    return f"the same command with --output {output} goes on from the newest checkpoint"
