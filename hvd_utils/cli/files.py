"""Write small text files so that a full disk or a power cut leaves the old or the new one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hvd_utils.cli.errors import BadInput


def write_text(path: Path, text: str) -> None:
    """Write a file whole; raise BadInput naming it if the disk will not take it."""
    try:
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise cannot_write(path, error) from error


def replace_text(path: Path, text: str) -> None:
    """Replace a file so that after a power cut either the old or the new one is there, whole.

    Raises BadInput naming it if the disk will not take it.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> BadInput:
    """Return the failure that names a file that could not be written, and why."""
    return BadInput(
        f"cannot write {path}: {error.strerror}; make room or choose another --output; "
        "the checkpoints saved before are intact"
    )
