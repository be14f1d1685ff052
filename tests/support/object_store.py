"""A local web server whose answers fail as a test says, and packed images for it to serve."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dali_pipeline.dataset.index import Index
from dali_pipeline.dataset.scan import scan_splits
from dali_pipeline.preparation.pack import pack
from dali_pipeline.preparation.shard import Encoding
from dali_pipeline.preparation.verify import verify
from dali_pipeline.storage.range_server import Handler, RangeServer
from hvd_utils.config.settings import Settings
from support.images import write_jpegs

CLOSED = "http://127.0.0.1:9"  # nobody listens


class FaultyServer(RangeServer):
    """Serves a folder, but a request fails as ``fault`` says of its path and its number.

    That is an error's code, "break" in the middle of a body, "stall" before any answer, or None.
    ``asked`` counts GETs and HEADs by path; ``seen`` holds each GET's path and range.
    """

    def __init__(self, folder: Path, fault: Callable[[str, int], int | str | None] | None = None):
        super().__init__(folder)
        self.RequestHandlerClass = FaultyHandler
        self.fault = fault or (lambda path, number: None)
        self.asked: Counter = Counter()
        self.seen: list[tuple[str, str]] = []
        self.ended = threading.Event()

    def __exit__(self, *failed):
        self.ended.set()
        super().__exit__(*failed)


class FaultyHandler(Handler):
    broken = False

    def answer(self, body: bool) -> None:
        with self.server.counting:
            number = self.server.asked[self.path] = self.server.asked[self.path] + 1
            self.server.seen += [(self.path, self.headers.get("Range", ""))] * body
        fault = self.server.fault(self.path, number)
        if isinstance(fault, int):
            self.fail(fault)
        elif fault == "stall":
            self.server.ended.wait()
            self.close_connection = True
        else:
            self.broken = fault == "break"
            super().answer(body)

    def send_body(self, data: bytes) -> None:
        if not self.broken:
            super().send_body(data)
            return
        self.wfile.write(data[: len(data) // 2])
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


def packed(splits: tuple[Index, Index], folder: Path, shard_bytes: int = 20_000) -> Path:
    """Write class folders as shards."""
    verified = verify(splits, folder.with_name(f"{folder.name}-verified"), 1)
    pack([one.index for one in verified], folder, Encoding(None, 90), shard_bytes, 1)
    return folder


def packed_jpegs(folder: Path, train: dict[str, int], val: dict[str, int]) -> Path:
    """Write made-up images of these classes as shards."""
    write_jpegs(folder / "images/train", train, seed=1)
    write_jpegs(folder / "images/val", val, seed=2)
    return packed(scan_splits(folder / "images"), folder / "packed")


def some_ids(index: Index) -> np.ndarray:
    """Return all images of an index, in an order of their own."""
    return np.random.default_rng(1).permutation(len(index))


def settings_of(url, cache, **changes):
    """Return the settings of a job that reads from ``url``."""
    given = {"storage_patience": 120, **changes}
    return Settings(recipe="test", data=url, cache=cache, **given)


def is_tar(path):
    """Return whether a path is a shard's."""
    return path.endswith(".tar")
