"""Elastic Horovod: when processes die or join, the others go on from what they hold in memory.

After every step all processes hold the same state to the bit. So after a failure each survivor is
at step s or s + 1 of one trajectory, and the furthest one's state is all that a new world needs:
nothing is saved for this while training goes well. The job is one function, entered anew for every
world; what outlives a world is in a ``Memory``.

Under ``horovodrun --gloo --min-np ... --host-discovery-script ...`` alone; elsewhere a failure
ends the job as it always did.
"""

from __future__ import annotations

import gc
import io
import os
from collections.abc import Callable
from typing import Any

import horovod.torch as hvd
import torch
from horovod.common.elastic import State, run_fn
from horovod.common.exceptions import HostsUpdatedInterrupt


class WorldChanged(HostsUpdatedInterrupt):
    """Hosts were added or taken away: raised by all processes, in the same step, to begin anew."""

    def __init__(self) -> None:
        super().__init__(skip_sync=True)


class Memory:
    """What this process knows from one world to the next."""

    def __init__(self) -> None:
        # Set by Horovod in a thread of rank 0 only. A job sums it over all ranks in each step, and
        # where the sum is not 0 all of them raise WorldChanged.
        self.hosts_changed = False
        self._newest: Callable[[], dict[str, Any]] | None = None

    def keep(self, newest: Callable[[], dict[str, Any]]) -> None:
        """Have ``newest`` return this process's state whenever it is asked for.

        The state is of what a checkpoint may hold (``torch.load(weights_only=True)`` reads it),
        with the number of updates made under "step". ``newest`` may not communicate, and between
        two steps or in the middle of one it has to return the state after a whole step.
        """
        self._newest = newest

    def recall(self) -> dict[str, Any] | None:
        """Return the state of the process that is furthest, on the CPU; collective.

        None if no process has any: the job begins. From then on every process keeps that state,
        until the job calls ``keep`` again, so that it outlives whoever had it.
        """
        state = self._newest() if self._newest else None
        step = -1 if state is None else state["step"]
        steps = hvd.allgather(torch.tensor([step]), name="memory.steps").tolist()
        furthest = steps.index(max(steps))
        if steps[furthest] < 0:
            return None
        packed = _broadcast(_pack(state) if hvd.rank() == furthest else None, furthest)
        self.keep(lambda: _unpack(packed))
        del state
        gc.collect()  # the former world's model and optimizer: Horovod's hooks make cycles
        return _unpack(packed)


def run(job: Callable[[Memory], None]) -> None:
    """Run ``job``, and in an elastic launch run it anew whenever the world has changed.

    ``job`` has to close what it opened (threads, pipelines, logs) however it is left. Any other
    exception than Horovod's own and WorldChanged ends this process.
    """
    memory = Memory()
    if os.environ.get("HOROVOD_ELASTIC") != "1":
        return job(memory)
    return run_fn(_enter_world, reset=hvd.shutdown)(_Listener(memory), job)


def _enter_world(listener: _Listener, job: Callable[[Memory], None]) -> None:
    # At once, before the job loads anything: the others wait here for a process that joins, and
    # only for as long as Gloo's timeout.
    hvd.init()
    os.environ["HOROVOD_RANK"] = str(hvd.rank())  # Horovod sets it where Python does not see it
    return job(listener.memory)


class _Listener(State):
    """Horovod's view of a Memory: it has nothing to save or restore."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(bcast_object=None, get_rank=None)
        self.memory = memory

    def on_hosts_updated(self, timestamp: int, update_res: int) -> None:
        self.memory.hosts_changed = True

    def reset(self) -> None:
        # Before the next rendezvous, never after it: what is announced later must not be missed.
        self.memory.hosts_changed = False

    def save(self) -> None:
        pass

    def restore(self) -> None:
        pass

    def sync(self) -> None:
        pass


def _pack(state: dict[str, Any]) -> torch.Tensor:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return torch.frombuffer(bytearray(buffer.getbuffer()), dtype=torch.uint8)


def _unpack(packed: torch.Tensor) -> dict[str, Any]:
    buffer = io.BytesIO(packed.numpy().tobytes())
    return torch.load(buffer, map_location="cpu", weights_only=True)


def _broadcast(packed: torch.Tensor | None, root: int) -> torch.Tensor:
    # hvd.broadcast_object takes 0.05 s a megabyte to turn bytes into a tensor.
    size = torch.tensor([0 if packed is None else len(packed)])
    size = hvd.broadcast(size, root, name="memory.size").item()
    if packed is None:
        packed = torch.empty(size, dtype=torch.uint8)
    return hvd.broadcast_(packed, root, name="memory.state")
