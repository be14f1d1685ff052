"""How a job has to end that cannot go on."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from support.launching import Finished


def assert_one_clear_line(ended: Finished, *words: str, rank: int | None = None) -> None:
    """Check that one line says what is wrong, with these words; of this rank, if not of rank 0."""
    assert ended.code not in (0, None), ended.output
    assert "Traceback" not in ended.output, ended.output
    lines = [line for line in ended.output.splitlines() if "error: " in line or "error on" in line]
    assert len(lines) == 1, ended.output
    for word in words:
        assert word in lines[0], lines[0]
    assert ("error on rank" in lines[0]) == (rank is not None)
    assert rank is None or f"error on rank {rank} (" in lines[0]


def assert_nobody_is_left(marker: Path) -> None:
    """No process that was given ``marker`` on its command line is still there."""
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(marker) in " ".join(process.cmdline()):
                left.append(process)
    assert not left
