"""Names of the images being decoded, in a file that survives a crash of the process.

A crash leaves Python no time to print anything. The kernel keeps what was written before.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path

BYTES = 1 << 16  # of names; further ones are dropped
_descriptor: int | None = None
_lock = threading.Lock()  # the decoding thread may not be the one that ends


def keep_in(path: Path) -> None:
    """Keep what this process decodes in ``path`` from now on; raises OSError."""
    global _descriptor
    stop_keeping()
    _descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)


def stop_keeping() -> None:
    """Keep nothing any more."""
    global _descriptor
    with _lock:
        if _descriptor is not None:
            os.close(_descriptor)
            _descriptor = None


def note(names: Iterable[str]) -> None:
    """Note the images that a decoder was given last, in place of those before."""
    if _descriptor is None:
        return
    text = "\n".join(names).encode(errors="surrogateescape")[: BYTES - 1]
    # A full disk is reported where it loses something.
    with _lock, contextlib.suppress(OSError):
        if _descriptor is not None:
            os.pwrite(_descriptor, text + b"\0", 0)


def read(path: Path) -> list[str]:
    """Return the names that were noted last in a file, none if there is no such file."""
    try:
        text = path.read_bytes().partition(b"\0")[0]
    except OSError:
        return []
    return text.decode(errors="surrogateescape").split("\n") if text else []
