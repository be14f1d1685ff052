"""Elastic Horovod: when processes die or join, the others continue from their state.

After every step all processes hold the same state to the bit. So after a failure each survivor is
at step s or s + 1 of one trajectory, and the furthest one's state is all that a new world needs:
nothing is saved for this while training goes well. The job is one function, entered anew for every
world; what outlives a world is in an ``ElasticState``.

Under ``horovodrun --gloo --min-np ... --host-discovery-script ...`` alone; elsewhere a failure
ends the job as it always did.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import socket
from collections.abc import Callable
from typing import Any

import horovod.torch as hvd
import torch
from horovod.common.elastic import State, run_fn
from horovod.common.exceptions import HorovodInternalError, HostsUpdatedInterrupt

from hvd_utils.horovod_backend.broadcast import broadcast_bytes


class WorldChanged(HostsUpdatedInterrupt):
    """Hosts were added or taken away: raised by all processes, in the same step, to begin anew."""

    def __init__(self) -> None:
        super().__init__(skip_sync=True)


class ElasticState:
    """What this process keeps from one world to the next."""

    def __init__(self) -> None:
        # Set by Horovod in a thread of rank 0 only. A job sums it over all ranks in each step, and
        # where the sum is not 0 all of them raise WorldChanged.
        self.hosts_changed = False
        self._newest: Callable[[], dict[str, Any]] | None = None

    @property
    def has_state(self) -> bool:
        """Whether this process has made or recalled any state."""
        return self._newest is not None

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
        until the job calls ``keep`` again, so that it survives the process that had it.
        """
        state = self._newest() if self._newest else None
        step = -1 if state is None else state["step"]
        steps = hvd.allgather(torch.tensor([step]), name="elastic.steps").tolist()
        furthest = steps.index(max(steps))
        if steps[furthest] < 0:
            return None
        packed = broadcast_bytes(
            _pack(state) if hvd.rank() == furthest else None, furthest, "elastic.state"
        )
        self.keep(lambda: _unpack(packed))
        del state
        gc.collect()  # the former world's model and optimizer: Horovod's hooks make cycles
        return _unpack(packed)


def run(job: Callable[[ElasticState], None]) -> None:
    """Run ``job``, and in an elastic launch run it anew whenever the world has changed.

    ``job`` has to close what it opened (threads, pipelines, logs) however it is left. Any other
    exception than Horovod's own and WorldChanged ends this process.
    """
    state = ElasticState()
    if os.environ.get("HOROVOD_ELASTIC") != "1":
        return job(state)
    world = _World(state)
    return run_fn(world.enter, reset=world.leave)(world, job)


class _World(State):
    """Horovod's view of an ElasticState: how a world is entered and left."""

    def __init__(self, state: ElasticState) -> None:
        super().__init__(bcast_object=None, get_rank=None)
        self._state = state
        self._connections: set[str] = set()

    def enter(self, _state: State, job: Callable[[ElasticState], None]) -> None:
        """Find the others, then run ``job``."""
        # At once, before the job loads anything: the others wait here for a process that joins,
        # and only for as long as Gloo's timeout.
        before = _open_sockets().keys()
        try:
            hvd.init()
        except ValueError as error:  # another process was lost, or not there in time
            if not self._state.has_state:
                raise  # a process that cannot join leaves: the others continue without its host
            raise HorovodInternalError(str(error)) from error
        self._connections = _open_sockets().keys() - before
        os.environ["HOROVOD_RANK"] = str(hvd.rank())  # Horovod's own setenv passes Python by
        return job(self._state)

    def leave(self) -> None:
        """End Horovod, also for those who still wait for this process."""
        hvd.shutdown()
        # It leaves its connections open. A process in the middle of a sum, waiting for this one
        # and not for the one that died, would learn of it by Gloo's timeout only.
        for name, descriptor in _open_sockets().items():
            if name in self._connections:
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as ours:
                    ours.shutdown(socket.SHUT_RDWR)

    def on_hosts_updated(self, timestamp: int, update_res: int) -> None:
        self._state.hosts_changed = True

    def reset(self) -> None:
        # Before the next rendezvous, never after it: what is announced later must not be missed.
        self._state.hosts_changed = False

    def save(self) -> None:
        pass

    def restore(self) -> None:
        pass

    def sync(self) -> None:
        pass


def _open_sockets() -> dict[str, int]:
    """Return the descriptor of each socket of this process, by the name that Linux gives it."""
    found = {}
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed by another thread in the meantime
            name = os.readlink(f"/proc/self/fd/{descriptor}")
            if name.startswith("socket:"):
                found[name] = int(descriptor)
    return found


def _pack(state: dict[str, Any]) -> torch.Tensor:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return torch.frombuffer(bytearray(buffer.getbuffer()), dtype=torch.uint8)


def _unpack(packed: torch.Tensor) -> dict[str, Any]:
    buffer = io.BytesIO(packed.numpy().tobytes())
    return torch.load(buffer, map_location="cpu", weights_only=True)
