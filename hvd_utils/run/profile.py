"""Profile some steps on some ranks (--profile): PyTorch's profiler and Horovod's timeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from hvd_utils.cli.errors import BadInput, Stopped
from hvd_utils.cli.ranks import some
from hvd_utils.config.settings import Settings
from hvd_utils.faults.heartbeat import FINISHING, READING
from hvd_utils.horovod_backend.timeline import start_timeline, stop_timeline
from hvd_utils.horovod_backend.world import World
from hvd_utils.run.lifecycle import Run
from hvd_utils.timing.stopwatch import part_of

FOLDER = "profile"  # below the run's folder


@contextmanager
def profiled(run: Run, settings: Settings, world: World) -> Iterator[Callable[[int, str], None]]:
    """Yield the heartbeat that ``train`` is to have: the run's own, where nothing is profiled.

    Else it also begins and ends the profile, and marks the stopwatch's parts in it. Raises BadInput
    on all ranks where the run has no such steps, or the job no such ranks.
    """
    if settings.profile is None:
        yield run.heartbeat
        return
    (first, last), ranks = settings.profile, sorted(set(settings.profile_ranks))
    if last > run.last_step:
        raise BadInput(
            f"--profile {first}-{last}: the run ends after step {run.last_step}: name earlier steps"
        )
    if ranks[-1] >= world.size:
        raise BadInput(
            f"--profile-ranks {','.join(map(str, ranks))}: there are ranks 0 to {world.size - 1}"
        )
    if run.step >= last:
        run.print_line(f"profile: the run is past step {last}: nothing is traced")
    elif run.step >= first:
        run.print_line(f"profile: the run is past step {run.step}: the trace begins after it")
    if run.step >= last or world.rank not in (0, *ranks):
        yield run.heartbeat
        return
    tracing = _Profile(run, max(first, run.step + 1), last, ranks, world)
    try:
        yield tracing.heartbeat
    except Stopped:
        tracing.end()
        raise


class _Profile:
    """The profile of steps ``first`` to ``last``, from 1, on this rank."""

    def __init__(self, run: Run, first: int, last: int, ranks: list[int], world: World) -> None:
        self._run, self._first, self._last = run, first, last
        self._ranks, self._world = ranks, world
        self._cuda = world.device.type == "cuda"
        self._folder = run.output / FOLDER / f"steps-{first}-{last}"
        self._profiler: profile | None = None
        self._timeline = False
        self._active = False
        self._range: record_function | None = None

    def heartbeat(self, step: int, doing: str) -> None:
        """Tell the run; begin or end the profile, and turn to the next part in it."""
        if doing == READING and step == self._first - 1 and not self._active:
            self._begin()
        self._run.heartbeat(step, doing)
        if self._active:
            self._switch_to(part_of(doing))
            if doing == FINISHING and step == self._last - 1:
                self.end()

    def _begin(self) -> None:
        self._active = True
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if self._world.is_root:
                self._timeline = start_timeline(self._folder / "horovod.json")
        except OSError as error:
            self._warn(error)
        if self._world.rank in self._ranks:
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * self._cuda
            self._profiler = profile(activities=activities, acc_events=True)
            self._synchronize()  # the device may be a step behind
            self._profiler.start()

    def _switch_to(self, part: str | None) -> None:
        """End the range of the part before; begin the next one's, for Nsight Systems too."""
        if self._profiler is None:
            return
        if self._range is not None:
            if self._cuda:
                torch.cuda.nvtx.range_pop()
            self._range.__exit__(None, None, None)
            self._range = None
        if part is not None:
            self._range = record_function(part)
            self._range.__enter__()
            if self._cuda:
                torch.cuda.nvtx.range_push(part)

    def end(self) -> None:
        """Write the files of what was traced, if anything; rank 0 names them."""
        if not self._active:
            return
        self._switch_to(None)
        self._active = False
        if self._timeline:
            stop_timeline()
        if self._profiler is not None:
            self._synchronize()
            self._profiler.stop()
            try:
                self._profiler.export_chrome_trace(str(self._trace(self._world.rank)))
            except (OSError, RuntimeError) as error:
                self._warn(error)
            self._profiler = None
        timeline = ", Horovod's timeline horovod.json" if self._timeline else ""
        traces = some(self._trace(rank).name for rank in self._ranks)
        self._run.print_line(
            f"profile: steps {self._first} to {self._last} in {self._folder}: {traces}{timeline}; "
            "https://ui.perfetto.dev shows them"
        )

    def _synchronize(self) -> None:
        if self._cuda:
            torch.cuda.synchronize(self._world.device)

    def _trace(self, rank: int) -> Path:
        return self._folder / f"rank-{rank}.json.gz"

    def _warn(self, error: Exception) -> None:
        print(f"warning: the profile of rank {self._world.rank} is lost: {error}", flush=True)
