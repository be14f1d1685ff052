"""Run the tests on two processes (``pytest -n 2``), and some of them alone.

Tests of a file run on one process, in their order, as do those that share what is costly to make.
A test marked ``alone`` runs while the other process waits: it measures how long something takes, or
fills both cores by itself.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.launching import REPOSITORY

# Folders whose tests share something costly: a Slurm cluster, the trajectory on one process.
SHARED = ("tests/slurm/", "tests/docs/", "tests/parallel/training/")

# The longest first, so that both processes end at about the same time; the others as they come.
FIRST = (
    "tests/slurm/",
    "tests/parallel/run/test_kills.py",
    "tests/docs/",
    "tests/parallel/training/",
    "tests/parallel/horovod_backend/test_elastic.py",
    "tests/parallel/run/",
    "tests/parallel/cli/",
    "tests/mutation/",
    "tests/parallel/",
    "tests/adversarial/",
)


def place(nodeid: str) -> str:
    """Return what a test shares its process with: its folder, or its file."""
    return next((folder for folder in SHARED if nodeid.startswith(folder)), nodeid.split("::")[0])


def rank_of(nodeid: str) -> int:
    """Return where in ``FIRST`` a test belongs."""
    starts = (number for number, start in enumerate(FIRST) if nodeid.startswith(start))
    return next(starts, len(FIRST))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first."""
    items.sort(key=lambda item: rank_of(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Give each process whole places."""
    from xdist.scheduler import LoadScopeScheduling

    class ByPlace(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return place(nodeid)

    config.option.loadscopereorder = False  # they are in order
    return ByPlace(config, log)


@contextmanager
def turn(*, alone: bool) -> Iterator[None]:
    """Wait for a test's turn.

    Whoever wants to be alone keeps others from beginning until those that run have ended.
    """
    with (REPOSITORY / "setup.cfg").open() as door, (REPOSITORY / "pyproject.toml").open() as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(door, fcntl.LOCK_UN)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run a test with its fixtures when its turn comes."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    with turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)
