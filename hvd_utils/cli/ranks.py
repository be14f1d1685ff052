"""Ranks before Horovod has started: the number of this one, and their names in messages."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

# Where launchers put the rank; for failures before Horovod has started.
RANK_VARIABLES = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
# And its number on its node. Slurm's come last: a batch script has them too, for one process.
LOCAL_RANK_VARIABLES = (
    *("HOROVOD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID"),
    "SLURM_LOCALID",
)


class Processes(Protocol):
    """What the input pipeline needs of a job's processes: a part of ``horovod_backend.World``."""

    @property
    def is_root(self) -> bool:
        """Whether this is rank 0."""

    @property
    def local_rank(self) -> int:
        """The number of this process on its node, from 0."""

    @property
    def local_size(self) -> int:
        """How many processes the node has."""

    @property
    def cores(self) -> int:
        """How many cores this process may use."""

    @property
    def host(self) -> str:
        """The name of the node."""

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's ``value``; collective."""

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's ``value``, by rank; collective."""


def launched_rank() -> int:
    """Return this process's rank as its launcher set it, 0 without a launcher."""
    ranks = (os.environ.get(name, "") for name in RANK_VARIABLES)
    return next((int(rank) for rank in ranks if rank.isdecimal()), 0)


def launched_local_rank() -> int | None:
    """Return this process's number on its node as its launcher set it, None where it did not."""
    numbers = (os.environ.get(name, "") for name in LOCAL_RANK_VARIABLES)
    return next((int(number) for number in numbers if number.isdecimal()), None)


SHOWN = 4  # ranks or hosts by name


def some(names: Iterable[str]) -> str:
    """Return a few names and how many more there are: ``a, b, c, d and 12 more``."""
    names = list(names)
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def name_ranks(ranks: Iterable[int], hosts: Mapping[int, str]) -> str:
    """Return ranks with their hosts, a few by name."""
    return some(f"rank {rank} ({hosts.get(rank, 'host unknown')})" for rank in sorted(ranks))


def name_hosts(ranks: Iterable[int], hosts: Mapping[int, str]) -> str:
    """Return the hosts of these ranks, each once, a few by name."""
    return some(dict.fromkeys(hosts.get(rank, f"host of rank {rank}") for rank in sorted(ranks)))
