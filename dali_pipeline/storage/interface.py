"""What the index needs of a place where shards lie."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol


class Piece(NamedTuple):
    """Some bytes of a file: its path or URL, the first byte, and how many."""

    path: str
    offset: int
    length: int


class Storage(Protocol):
    """A place where shards lie. Any thread may ask; it can be sent to other processes."""

    @property
    def ahead(self) -> int:
        """How many images a loader should announce by ``expect`` before it reads them."""

    def expect(self, pieces: Iterable[Piece]) -> None:
        """Learn what will be read soon, in this order; returns at once."""

    def read(self, piece: Piece) -> bytes:
        """Return the bytes of a piece; fewer where the file ends.

        Raises OSError where the file is at fault, and BadInput where the storage is.
        """
