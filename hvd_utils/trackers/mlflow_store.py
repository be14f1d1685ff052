"""Send to MLflow (https://mlflow.org/docs/latest/api_reference/python_api/mlflow.client.html)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from hvd_utils.trackers.sender import PROJECT

BATCH = 100  # parameters that MLflow takes at once


def make(run: Path, run_id: str | None, facts: Mapping[str, Any]) -> MlflowSender:
    """Return the sender of a run; see ``make_sender``."""
    return MlflowSender(run, run_id, facts)


class MlflowSender:
    """Sends to one run of the experiment MLFLOW_EXPERIMENT_NAME."""

    def __init__(self, run: Path, run_id: str | None, facts: Mapping[str, Any]) -> None:
        self._client = MlflowClient()
        if run_id is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            found = self._client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else self._client.create_experiment(name)
            made = self._client.create_run(experiment, run_name=run.name)
            run_id = made.info.run_id
            params = [Param(key, str(value)) for key, value in facts.items()]
            for first in range(0, len(params), BATCH):
                self._client.log_batch(run_id, params=params[first : first + BATCH])
        else:
            self._client.update_run(run_id, status="RUNNING")
        self.id = run_id

    def send(self, place: int, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Send metrics of a step; see ``Sender``. They are stored when this returns."""
        when = round(1000 * seconds)
        batch = [Metric(name, value, when, step) for name, value in metrics.items()]
        self._client.log_batch(self.id, metrics=batch)

    def close(self, ended: bool) -> None:
        """Mark the run as finished, or as stopped."""
        self._client.set_terminated(self.id, "FINISHED" if ended else "KILLED")
