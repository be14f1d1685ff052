"""Send to Weights & Biases (https://docs.wandb.ai); offline on nodes without a route to it."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb

from hvd_utils.trackers.sender import PROJECT

SERVER = "https://api.wandb.ai"
ROUTE_SECONDS = 5.0


def make(run: Path, run_id: str | None, facts: Mapping[str, Any]) -> WandbSender:
    """Return the sender of a run; see ``make_sender``."""
    return WandbSender(run, run_id or secrets.token_hex(4), facts)


def mode(environment: Mapping[str, str]) -> Any:
    """Return what WANDB_MODE says, else ``online`` or, where there is no route, ``offline``."""
    if environment.get("WANDB_MODE"):
        return environment["WANDB_MODE"]
    server = urlsplit(environment.get("WANDB_BASE_URL", SERVER))
    port = server.port or (80 if server.scheme == "http" else 443)
    try:
        socket.create_connection((server.hostname, port), ROUTE_SECONDS).close()
    except OSError:
        return "offline"
    return "online"


class WandbSender:
    """Sends to one run; wandb's own process does it in the background."""

    def __init__(self, run: Path, run_id: str, facts: Mapping[str, Any]) -> None:
        self.id = run_id
        self._folder = run / "wandb"
        self._mode = mode(os.environ)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", run.name),
            id=run_id,
            resume="allow",
            dir=run,
            mode=self._mode,
            config=dict(facts),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("*", step_metric="step")

    def send(self, place: int, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Send metrics of a step; see ``Sender``. wandb drops what is not of a later place."""
        self._run.log({**metrics, "step": step}, step=place)

    def close(self, ended: bool) -> str | None:
        """Send the rest. An offline run is sent from a node with a route."""
        self._run.finish()
        if self._mode != "offline":
            return None
        return f"wandb is offline: wandb sync {self._folder}/offline-run-* sends the run"
