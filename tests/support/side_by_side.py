"""Run the tests on several processes (``pytest -n 2``), the longest first.

Tests of a file run on one process, in their order, as do those that share what is costly to make.
"""

from __future__ import annotations

import pytest

# Folders whose tests share something costly: a Slurm cluster, the trajectory on one process.
SHARED = ("tests/slurm/", "tests/docs/", "tests/parallel/training/")

# The longest first, so that all processes end at about the same time; the others as they come.
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
