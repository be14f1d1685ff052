"""This rank's place among the others."""

from __future__ import annotations

import argparse
import socket
from dataclasses import dataclass, field
from typing import Any

from hvd_utils.cli.ranks import launched_local_rank
from hvd_utils.config.settings import Settings


@dataclass
class ThisRank:
    """One rank: its options, and where it runs.

    ``hosts`` are those of the ranks that answered, by rank: rank 0 sends them. ``groups`` are
    communicators of some ranks, ``child`` is the process for what may crash.
    """

    rank: int
    size: int
    options: argparse.Namespace
    settings: Settings
    comm: Any = None
    child: Any = None
    hosts: dict[int, str] = field(default_factory=dict)
    groups: dict[str, Any] = field(default_factory=dict)
    host: str = field(default_factory=socket.gethostname)

    @property
    def neighbours(self) -> list[int]:
        """The ranks of this node, this one included."""
        return [rank for rank, host in sorted(self.hosts.items()) if host == self.host]

    @property
    def local_size(self) -> int:
        """How many ranks this node has."""
        return max(1, len(self.neighbours))

    @property
    def local_rank(self) -> int:
        """This rank's number on its node, from the launcher or else by order."""
        told = launched_local_rank()
        return self.neighbours.index(self.rank) if told is None else told

    @property
    def leads(self) -> bool:
        """Whether this rank speaks for its node."""
        return not self.neighbours or self.rank == self.neighbours[0]


def leaders(hosts: dict[int, str]) -> list[int]:
    """Return the first rank of each host."""
    first: dict[str, int] = {}
    for rank in sorted(hosts):
        first.setdefault(hosts[rank], rank)
    return sorted(first.values())
