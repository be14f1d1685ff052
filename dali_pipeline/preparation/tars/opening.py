"""Open a tar, whether it is a file or at a URL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import BinaryIO

from dali_pipeline.preparation.tars.listing import OPTION, store_of
from dali_pipeline.storage.address import is_remote
from dali_pipeline.storage.client import Client
from dali_pipeline.storage.remote_file import RemoteFile
from hvd_utils.cli.errors import BadInput


def state_of(path: str) -> tuple[int, str]:
    """Return a tar's bytes, and what tells that it is the same as before.

    Raises BadInput where a URL has none, or does not answer.
    """
    if not is_remote(path):
        stat = os.stat(path)
        return stat.st_size, str(stat.st_mtime_ns)
    try:
        size, *version = _client(store_of(path)).stat(path)
    except FileNotFoundError as error:
        raise BadInput(f"{path} does not exist: check the URL and braces of {OPTION}") from error
    return size, f"{version} {path}"


@contextmanager
def open_tar(path: str, size: int) -> Iterator[BinaryIO | RemoteFile]:
    """Open a tar of so many bytes to be read. A context manager."""
    if is_remote(path):
        yield RemoteFile(_client(store_of(path)), path, size)
    else:
        with open(path, "rb") as file:
            yield file


@cache
def _client(store: str) -> Client:
    """Return this process's client of a bucket or host."""
    return Client(store)
