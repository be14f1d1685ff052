"""Which images the decoder has, in a file that is still there when it ends the process.

A crash leaves Python no moment to say anything. The file is mapped into memory: what was noted is
the kernel's to keep, and noting costs no system call.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path

BYTES = 1 << 16  # of names; further ones are left out
_file: mmap.mmap | None = None


def keep_in(path: Path) -> None:
    """Keep what this process decodes in ``path`` from now on; raises OSError."""
    global _file
    path.write_bytes(bytes(BYTES))
    with path.open("r+b") as file:
        _file = mmap.mmap(file.fileno(), BYTES)


def note(names: Iterable[str]) -> None:
    """Note the images that a decoder was given last, in place of those before."""
    if _file is not None:
        text = "\n".join(names).encode(errors="surrogateescape")[: BYTES - 1]
        _file[: len(text) + 1] = text + b"\0"


def read(path: Path) -> list[str]:
    """Return the names that were noted last in a file, none if there is no such file."""
    try:
        text = path.read_bytes().partition(b"\0")[0]
    except OSError:
        return []
    return text.decode(errors="surrogateescape").split("\n") if text else []
