"""The state of a run after a step: everything that the rest of the run depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hvd_utils.config.settings import Settings
from hvd_utils.run import checkpoint
from hvd_utils.run.progress import Progress
from hvd_utils.training.train_state import TrainState

State = Mapping[str, Any]


def collect_state(
    settings: Settings, progress: Progress, training: TrainState, data_facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a checkpoint holds; the number of processes is not among it.

    Between two steps it is the same on every rank. Its tensors are those in use, not copies.
    """
    return {
        "step": progress.step,
        "progress": vars(progress) | {"top1_errors": list(progress.top1_errors)},
        "experiment": settings.experiment(),
        **data_facts,
        **training.state_dict(progress.step),
    }


def restore_state(state: State | None, training: TrainState, epoch_ends: Sequence[int]) -> Progress:
    """Bring ``training`` to ``state``, or all ranks to rank 0's first weights; collective.

    Returns how far the run is; its epochs end at the steps ``epoch_ends``. Raises BadInput where
    the state is not of such a run.
    """
    if state is None:
        training.broadcast()
        return Progress()
    with checkpoint.explained(state.get("path", "that other processes hold")):
        training.load_state_dict(state)
        progress = Progress(**state["progress"])
        progress.check(epoch_ends)
        return progress
