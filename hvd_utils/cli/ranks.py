"""Ranks before Horovod has started: the number of this one, and their names in messages."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from hvd_utils.cli.errors import BadInput

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


# Where other launchers than horovodrun put the number of processes; an inner one's comes first.
SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")


def require_together(size: int) -> None:
    """Raise BadInput where a launcher started several processes, but Horovod found this one alone.

    Each would train a run of its own, and say nothing. ``size`` is Horovod's.
    """
    if {"HOROVOD_SIZE", "HOROVOD_ELASTIC"} & os.environ.keys():  # by horovodrun, without MPI
        return
    sizes = ((name, os.environ.get(name, "")) for name in SIZE_VARIABLES)
    name, launched = next(((name, n) for name, n in sizes if n.isdecimal()), ("", "1"))
    if size == 1 and int(launched) > 1:
        raise BadInput(
            f"{launched} processes were started ({name}), but Horovod finds each alone: start them "
            "by horovodrun, by the mpirun it was built with, or by srun --mpi=pmix; torchrun and "
            f"plain srun do not start it (for one process alone, unset {name})"
        )


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
