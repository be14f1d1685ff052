"""Asynchronous checkpoints: training waits for a copy in memory, a thread writes it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hvd_utils.run.checkpoint import checkpoint_path, mark_best, save_checkpoint

SHOWN_WAIT = 0.5  # seconds; a longer wait for the disk is shown


@dataclass(frozen=True)
class _Write:
    """A checkpoint under way: what it resolves to is its seconds and bytes, None if not new."""

    future: Future[tuple[float, int] | None]
    path: Path
    step: int
    stalled_seconds: float


class AsyncCheckpointer:
    """Copies the state of a run and has one thread write it; used by one thread of rank 0.

    The ``keep`` newest checkpoints stay (0: all), and so does ``spared``. ``print_line`` shows a
    line; ``record`` takes an event's name and values. Only the methods call them, never the
    writing thread.
    """

    def __init__(
        self,
        output: Path,
        keep: int,
        print_line: Callable[[str], None],
        record: Callable[..., None],
        spared: Path | None = None,
    ) -> None:
        self._output, self._keep, self._spared = output, keep, spared
        self._print_line, self._record = print_line, record
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._write: _Write | None = None
        self._last: tuple[int, Any] | None = None

    def save(self, state: Mapping[str, Any], best: bool = False) -> None:
        """Copy ``state`` and hand it to the writing thread; with ``best`` keep it as such.

        Waits for the write before, so that there is never more than one copy. Does nothing if this
        is the step, and the progress, that was saved last, but for marking it the best. On a GPU
        the copy also waits for the steps that were queued before it. Raises BadInput if the write
        before failed.
        """
        began = time.monotonic()
        step = state["step"]
        # The same step is saved again after its epoch's validation, with its errors.
        this = step, copy.deepcopy(state.get("progress"))
        again = this == self._last
        if again and not best:
            return
        self._wait_before(step)
        future: Future
        if again:
            future = self._thread.submit(self._mark, step)
        else:
            future = self._thread.submit(self._save, host_copy(dict(state)), best)
        self._last = this
        path = checkpoint_path(self._output, step)
        self._write = _Write(future, path, step, time.monotonic() - began)

    def check(self) -> None:
        """Record a write that has ended; raise its BadInput if it failed. Cheap: for every step."""
        if self._write and self._write.future.done():
            self._collect()

    def finish(self) -> None:
        """Wait until every save is on the disk; raise BadInput if one failed."""
        self._collect()

    def _wait_before(self, step: int) -> None:
        began, before = time.monotonic(), self._write
        self._collect()
        waited = time.monotonic() - began
        if before and waited > SHOWN_WAIT:
            self._print_line(
                f"the disk is slow: step {step} waited {waited:.1f} s for checkpoint {before.path}"
            )

    def _collect(self) -> None:
        write, self._write = self._write, None
        if write is None:
            return
        written = write.future.result()
        if written is not None:
            seconds, size = written
            self._record(
                "checkpoint",
                step=write.step,
                stalled_seconds=write.stalled_seconds,
                write_seconds=seconds,
                bytes=size,
            )

    # On the writing thread.

    def _save(self, state: Mapping[str, Any], best: bool) -> tuple[float, int]:
        began = time.monotonic()
        path = save_checkpoint(self._output, state, keep=self._keep, best=best, spared=self._spared)
        return time.monotonic() - began, path.stat().st_size

    def _mark(self, step: int) -> None:
        mark_best(self._output, step)


def host_copy(value: Any) -> Any:
    """Return a copy of nested dicts, lists and tuples that shares nothing, tensors on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        copied = copy.copy(value)  # of its own kind: a model's state has versions as an attribute
        for key, item in value.items():
            copied[key] = host_copy(item)
        return copied
    if isinstance(value, (list, tuple)):
        return type(value)([host_copy(item) for item in value])
    return copy.deepcopy(value)
