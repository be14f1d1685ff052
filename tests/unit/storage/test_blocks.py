"""Blocks of a shard that are fetched and kept: every byte, in bounded memory."""

import os

from dali_pipeline.storage.cache import Cache
from dali_pipeline.storage.client import Stat
from dali_pipeline.storage.interface import Piece
from dali_pipeline.storage.remote import AHEAD, BLOCK, BlockReader, cover


class Shards:
    """A client of one shard, of which so many bytes are there."""

    def __init__(self, length):
        self.data = os.urandom(length)
        self.there = length

    def require(self, path, offset, length):
        data = memoryview(self.data[: self.there])[offset : offset + length]
        return data, Stat(self.there, 0, None)


def test_a_block_that_was_kept_while_its_shard_was_shorter_makes_no_image_bad(tmp_path):
    shards = Shards(3000)
    shards.there = 1500  # as while it is uploaded to a web server
    pieces = [Piece("a", 1000 * i, 1000) for i in range(3)]
    reader = BlockReader(shards, Cache(tmp_path, "a", 10**9, replaces=True))
    reader.expect(pieces)
    assert [len(reader.read(piece)) for piece in pieces] == [1000, 500, 0]
    shards.there = 3000
    again = BlockReader(shards, Cache(tmp_path, "a", 10**9, replaces=True))
    assert b"".join(map(again.read, pieces)) == shards.data


def test_announced_images_take_bounded_memory_where_no_block_is_kept(tmp_path):
    count = 3 * AHEAD
    shards = Shards(count * 10)
    reader = BlockReader(shards, Cache(tmp_path, "a", 1, replaces=True))
    reader._cache.full = True
    pieces = [Piece("a", 10 * i, 10) for i in range(count)]
    reader.expect(pieces)
    data = []
    for piece in pieces:
        assert len(reader._coming) <= AHEAD
        data.append(reader.read(piece))
    assert b"".join(data) == shards.data
    assert not reader._coming
    assert not reader._waiting


def test_a_piece_in_several_blocks_is_read_from_them(tmp_path, monkeypatch):
    monkeypatch.setattr("dali_pipeline.storage.remote.BLOCK", 1000)
    shards, asked = Shards(3000), []
    require = shards.require
    monkeypatch.setattr(shards, "require", lambda *part: asked.append(part) or require(*part))
    reader = BlockReader(shards, Cache(tmp_path, "a", 10**9, replaces=True))
    piece = Piece("a", 500, 2000)
    reader.expect([piece])
    assert reader.read(piece) == shards.data[500:2500]
    assert sorted(asked) == [("a", start, 1000) for start in (0, 1000, 2000)]


def test_blocks_cover_a_piece():
    assert list(cover(Piece("a", BLOCK - 3, BLOCK + 5))) == [
        (Piece("a", 0, BLOCK), BLOCK - 3, 3),
        (Piece("a", BLOCK, BLOCK), 0, BLOCK),
        (Piece("a", 2 * BLOCK, BLOCK), 0, 2),
    ]
