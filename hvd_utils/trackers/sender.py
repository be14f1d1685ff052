"""What a tracker's sender does, which there are, and whether one can be used here."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import Processes
from hvd_utils.config.settings import Settings

PROJECT = "imagenet-in-1-hour"  # of wandb, or experiment of MLflow, where the user names none


class Sender(Protocol):
    """Sends metrics to one run of a tracker; ``id`` names it there, so that it can go on."""

    id: str

    def send(self, place: int, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Send metrics of ``step``, logged at ``seconds`` of Unix time; ``place`` only rises."""

    def close(self, ended: bool) -> str | None:
        """Send the rest; ``ended`` is whether the run is over. Return a line to show, if any."""


class Known(NamedTuple):
    """A tracker: what is imported for it, what pip calls that, and where its sender is."""

    module: str
    package: str
    sender: str


TRACKERS = {
    "wandb": Known("wandb", "wandb", "hvd_utils.trackers.weights_and_biases"),
    "mlflow": Known("mlflow", "mlflow-skinny", "hvd_utils.trackers.mlflow_store"),
}


def require_trackers(settings: Settings, world: Processes) -> None:
    """Raise BadInput on all ranks where rank 0 cannot use a tracker of --track; collective.

    Rank 0 alone sends to them: other hosts need neither package nor variables.
    """
    reason = ""
    if world.is_root:
        try:
            check_trackers(settings)
        except BadInput as error:
            reason = str(error)
    if settings.track and (reason := world.broadcast(reason)):
        raise BadInput(reason)


def check_trackers(settings: Settings) -> None:
    """Raise BadInput where a tracker of --track cannot be used here; imports none of them."""
    for name in settings.track:
        check_tracker(name)


def check_tracker(name: str) -> None:
    """Raise BadInput where a tracker is not installed, or does not know where to write."""
    known = TRACKERS[name]
    if importlib.util.find_spec(known.module) is None:
        raise BadInput(f"--track {name}: {known.module} is not here: pip install {known.package}")
    if name == "mlflow" and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise BadInput(
            "--track mlflow: MLFLOW_TRACKING_URI is not set: give a server's, as "
            "http://host:5000, or a file's, as sqlite:////shared/mlflow.db"
        )


def make_sender(name: str, run: Path, run_id: str | None, facts: Mapping[str, Any]) -> Sender:
    """Return the sender of a run; ``run_id`` is what an earlier one had, ``facts`` its settings."""
    return importlib.import_module(TRACKERS[name].sender).make(run, run_id, facts)
