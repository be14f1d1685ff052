"""Crash reports: the stacks and the images in flight when a library ends the process.

Nobody can speak for such a process at that moment. The next launch, or ``requeue``, does.
"""

from __future__ import annotations

import contextlib
import faulthandler
from pathlib import Path

from hvd_utils.faults import in_flight
from hvd_utils.faults.heartbeat import FOLDER

SHOWN = 3  # images by name
_open: list = []  # the file that the handler of crashes writes to


def prepare(folder: Path, rank: int) -> None:
    """Have a crash of this process leave its traces in the run's ``folder``, if it can."""
    forget(folder, rank)
    with contextlib.suppress(OSError):
        path = _path(folder, rank)
        path.parent.mkdir(exist_ok=True)
        in_flight.keep_in(_images(path))
        _open.append(path.open("w"))
        faulthandler.enable(_open[-1])


def forget(folder: Path, rank: int) -> None:
    """Remove what ``prepare`` made: this process ends in good order."""
    faulthandler.disable()
    in_flight.stop_keeping()
    while _open:
        _open.pop().close()
    for path in (_path(folder, rank), _images(_path(folder, rank))):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def traces(folder: Path) -> list[str]:
    """Return a line for each rank of the run in ``folder`` that crashed in its last launch."""
    return [
        _describe(path) for path in sorted((folder / FOLDER).glob("*.crash")) if path.stat().st_size
    ]


def forget_others(folder: Path, size: int) -> None:
    """Remove the traces of ranks that a world of this size does not have."""
    for path in (folder / FOLDER).glob("*.crash"):
        if int(path.stem) >= size:
            for left in (path, _images(path)):
                with contextlib.suppress(OSError):
                    left.unlink(missing_ok=True)


def _describe(path: Path) -> str:
    with path.open(errors="replace") as file:
        what = file.readline().strip().removeprefix("Fatal Python error: ")
    names = in_flight.read(_images(path))
    images = ""
    if names:
        more = f" and {len(names) - SHOWN} more in {_images(path)}" if len(names) > SHOWN else ""
        images = f", while images were decoded: {', '.join(names[:SHOWN])}{more}"
    return f"rank {int(path.stem)} crashed ({what}; stacks in {path}){images}"


def _path(folder: Path, rank: int) -> Path:
    return folder / FOLDER / f"{rank:05}.crash"


def _images(path: Path) -> Path:
    return path.with_suffix(".images")
