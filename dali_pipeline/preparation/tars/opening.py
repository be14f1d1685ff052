"""Open a tar, whether it is a file or at a URL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import BinaryIO

from dali_pipeline.preparation.tars.listing import OPTION
from dali_pipeline.storage.address import is_remote
from dali_pipeline.storage.client import Client
from dali_pipeline.storage.remote_file import RemoteFile
from hvd_utils.cli.errors import BadInput


def state_of(path: str, root: str) -> tuple[int, str]:
    """Return the bytes of a tar below ``root``, and what tells that it is the same as before.

    Raises BadInput where a URL has none, or does not answer.
    """
    if not is_remote(path):
        stat = os.stat(path)
        return stat.st_size, str(stat.st_mtime_ns)
    try:
        size, *version = _client(root).stat(path)
    except FileNotFoundError as error:
        raise BadInput(f"{path} does not exist: check the URL and braces of {OPTION}") from error
    return size, f"{version} {path}"


@contextmanager
def open_tar(path: str, root: str, size: int) -> Iterator[BinaryIO | RemoteFile]:
    """Open a tar of so many bytes below ``root`` to be read. A context manager."""
    if is_remote(path):
        yield RemoteFile(_client(root), path, size)
    else:
        with open(path, "rb") as file:
            yield file


@cache
def _client(root: str) -> Client:
    """Return this process's client of what lies below a URL."""
    return Client(root)
