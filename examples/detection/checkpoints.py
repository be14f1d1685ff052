"""The run's folder: made and locked by rank 0, and gone on with from its newest checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import Settings
from hvd_utils.faults.folder_lock import FolderLock
from hvd_utils.horovod_backend.world import World
from hvd_utils.run.checkpoint import differing, explained, newest_valid, require, save_checkpoint
from hvd_utils.run.folder import create_output
from hvd_utils.training.train_state import TrainState

KEPT = 2


class Checkpoints:
    """The checkpoints of one run; every rank makes one and calls its methods in turn.

    ``experiment`` is what determines the weights beside the project's settings, as plain values. A
    run goes on only with the same.
    """

    def __init__(
        self, settings: Settings, experiment: Mapping[str, Any], state: TrainState, world: World
    ) -> None:
        self._experiment = {**settings.experiment(), **experiment}
        self._state, self._world = state, world
        folder = None
        if world.is_root:
            folder = create_output(settings.output, settings.recipe)
            self._lock = FolderLock(folder)
            if warning := self._lock.acquire():
                print(warning, flush=True)
        self.folder: Path = world.broadcast(folder)

    def resume(self) -> int:
        """Bring all ranks to the newest checkpoint, or to rank 0's weights; return its step."""
        found = self._find() if self._world.is_root else None
        found = self._world.broadcast(found)
        if found is None:
            self._state.broadcast()
            return 0
        with explained(found["path"]):
            self._state.load_state_dict(found)
        return found["step"]

    def save(self, step: int) -> None:
        """Have rank 0 write the state after ``step`` updates, and wait for it; collective."""
        if self._world.is_root:
            state = self._state.state_dict(step)
            content = {"step": step, "experiment": self._experiment, **state}
            save_checkpoint(self.folder, content, keep=KEPT)
        self._world.sum([0], "saved")  # no rank that ends the job goes before

    def _find(self) -> dict[str, Any] | None:
        path, state, damaged = newest_valid(self.folder)
        for file in damaged:
            print(f"checkpoint {file} is damaged: passed over", flush=True)
        if state is None:
            return None
        require(state, path, "experiment", "model", "optimizer")
        if differ := differing(state["experiment"], self._experiment):
            raise BadInput(
                f"{path} is of another run: {'; '.join(differ)}: go on with the same "
                "options and files, or choose another --output"
            )
        print(f"resuming from {path}, step {state['step']}", flush=True)
        return {**state, "path": str(path)}
