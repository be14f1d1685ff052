"""Shards in an object store: many reads in flight, and a cache on the node's disk."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dali_pipeline.storage.cache import Cache
from dali_pipeline.storage.client import PATIENCE, Client
from dali_pipeline.storage.interface import Piece
from dali_pipeline.storage.workers import Workers
from hvd_utils.cli.errors import BadInput

IMAGES_IN_FLIGHT = 64  # requests of a process at once
BLOCKS_IN_FLIGHT = 16  # likewise, of larger pieces
AHEAD = 512  # images that are announced before they are read
MOST_AHEAD = 8192  # likewise, where they come in blocks, whatever the window
BLOCK = 1 << 22  # bytes


@dataclass(frozen=True)
class CacheFolder:
    """Where a node keeps what it read: a folder, the data set's version, and the most bytes."""

    folder: str
    version: str
    limit: int


@dataclass(frozen=True)
class RemoteShards:
    """Objects below ``url``; see ``Storage``.

    ``blocks``: read whole blocks into the cache, where images that are read one after the other lie
    near one another; otherwise each image by itself. A request is repeated for ``patience``
    seconds. Another process that this is sent to connects and opens the cache by itself.
    """

    url: str
    cache: CacheFolder
    blocks: bool = False
    ahead: int = AHEAD
    patience: float = PATIENCE

    def expect(self, pieces: Iterable[Piece]) -> None:
        """Begin to read these pieces; see ``Storage``."""
        _reader(self).expect(pieces)

    def read(self, piece: Piece) -> bytes:
        """Return the bytes of a piece; see ``Storage``."""
        return _reader(self).read(piece)


@cache
def _reader(shards: RemoteShards) -> ImageReader:
    """Return this process's reader of a storage."""
    client = Client(shards.url, shards.patience)
    where = shards.cache
    cache = Cache(Path(where.folder), where.version, where.limit, replaces=shards.blocks)
    return (BlockReader if shards.blocks else ImageReader)(client, cache)


class ImageReader:
    """Reads each piece by a request of its own, or from the cache."""

    in_flight = IMAGES_IN_FLIGHT
    held = MOST_AHEAD  # announced images that are asked for, and in memory until they are read

    def __init__(self, client: Client, cache: Cache) -> None:
        self._client, self._cache = client, cache
        self._workers = Workers(self.in_flight)
        self._versions: dict[str, str] = {}  # by URL: its ETag, or else its size and time
        self._coming: dict[Piece, Future] = {}
        self._waiting: dict[Piece, None] = {}  # announced, in order, and not asked for
        self._lock = threading.Lock()

    def expect(self, pieces: Iterable[Piece]) -> None:
        """Begin to read pieces, in this order."""
        pieces = list(pieces)  # before the lock: it looks into the index
        with self._lock:
            self._waiting.update((piece, None) for piece in pieces if piece not in self._coming)
            self._ask()

    def read(self, piece: Piece) -> bytes:
        """Return the bytes of a piece."""
        with self._lock:
            self._waiting.pop(piece, None)
            coming = self._coming.pop(piece, None)
            self._ask()
        return coming.result() if coming else self._get(piece)

    def _ask(self) -> None:
        """Ask for what waits while there is room."""
        while self._waiting and len(self._coming) < self.held:
            piece = next(iter(self._waiting))
            del self._waiting[piece]
            self._coming[piece] = self._workers.submit(self._get, piece)

    def _get(self, piece: Piece) -> bytes:
        data = self._cache.read(piece, 0, piece.length)
        if data is None:
            data = bytes(self._fetch(piece))
            if len(data) == piece.length:
                self._cache.write(piece, data)
        return data

    def _fetch(self, piece: Piece) -> memoryview:
        """Ask for a piece; raises BadInput where its object is not the one of the first answer."""
        data, stat = self._client.require(*piece)
        first = self._versions.setdefault(piece.path, stat.version)  # whole, in any thread
        if stat.version != first:
            raise BadInput(
                f"{piece.path} was replaced while this job read it ({first} at first, now "
                f"{stat.version}): put the same file back, or prepare the data again and begin anew"
            )
        return data


class BlockReader(ImageReader):
    """Reads blocks into the cache, and pieces from there; alone those that are not there."""

    in_flight = BLOCKS_IN_FLIGHT
    held = AHEAD  # images, where there is no room for blocks

    def expect(self, pieces: Iterable[Piece]) -> None:
        """Begin to read the blocks of these pieces, in this order."""
        if self._cache.full:  # the disk is: blocks would be read in vain
            super().expect(pieces)
            return
        blocks = dict.fromkeys(block for piece in pieces for block, *_ in cover(piece))
        with self._lock:
            for block in blocks:  # each of many pieces: the cache is asked once
                if block not in self._coming and not self._cache.has(block):
                    self._coming[block] = self._workers.submit(self._bring, block)

    def read(self, piece: Piece) -> bytes:
        """Return the bytes of a piece, from its blocks where they are there or on the way."""
        parts = []
        for block, offset, length in cover(piece):
            with self._lock:
                coming = self._coming.get(block)
            if coming:
                coming.result()
            parts.append(self._cache.read(block, offset, length) or b"")
        data = b"".join(parts)
        # Less where a block is gone again, or its shard was shorter when the block was kept.
        return data if len(data) == piece.length else super().read(piece)

    def _bring(self, block: Piece) -> None:
        try:
            self._cache.write(block, self._fetch(block))
        finally:
            with self._lock:
                self._coming.pop(block, None)


def cover(piece: Piece) -> Iterator[tuple[Piece, int, int]]:
    """Yield each block that a piece lies in, with the part's offset in the block and its length."""
    path, offset, length = piece
    while length > 0:
        within = offset % BLOCK
        part = min(length, BLOCK - within)
        yield Piece(path, offset - within, BLOCK), within, part
        offset, length = offset + part, length - part
