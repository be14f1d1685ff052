"""Heartbeats: each rank writes its step to a small file, and every rank reads them all.

Files need no network between the ranks and no collective, so they still speak where those hang.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

FOLDER = "ranks"  # below the run's folder
# What a rank may be doing.
READING = "reading images"
COMPUTING = "computing"
COMPILING = "compiling"  # and then computing: minutes, which are no hang
WAITING = "waiting for the other ranks"
FINISHING = "finishing the step"  # what follows it on one rank: to log, to save
FINISHED = "finished"


@dataclass(frozen=True)
class Heartbeat:
    """Where a rank stands. ``number`` counts its reports, so no two of one rank are equal."""

    rank: int
    host: str
    pid: int
    number: int
    step: int
    doing: str
    count: int  # within a longer piece of work, as the batch of a validation
    idle: float  # seconds since the rank last went on
    time: float = field(default_factory=time.time)  # for people: clocks of hosts may differ
    changed: float = 0.0  # when the file was written, by the file system's clock; set on reading


def heartbeat_path(folder: Path, rank: int) -> Path:
    """Return the file of a rank below the run's ``folder``."""
    return folder / FOLDER / f"{rank:05}.json"


def write_heartbeat(folder: Path, report: Heartbeat) -> None:
    """Replace a rank's file whole; a failure is ignored, for the folder may be gone."""
    path = heartbeat_path(folder, report.rank)
    temporary = path.with_suffix(".tmp")
    values = asdict(report)
    del values["changed"]
    try:
        path.parent.mkdir(exist_ok=True)
        temporary.write_text(json.dumps(values) + "\n")
        os.replace(temporary, path)
    except OSError:
        pass


def read_heartbeats(folder: Path, size: int) -> dict[int, Heartbeat]:
    """Return the newest report of each of ``size`` ranks whose file can be read here."""
    reports = {}
    for rank in range(size):
        try:
            with heartbeat_path(folder, rank).open() as file:
                changed = os.fstat(file.fileno()).st_mtime
                reports[rank] = Heartbeat(**{**json.load(file), "rank": rank, "changed": changed})
        except (OSError, ValueError, TypeError):
            continue  # not there, or not ours
    return reports
