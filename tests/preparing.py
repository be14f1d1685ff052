"""Preparing a data set in one process, and seeing what it wrote."""

from __future__ import annotations

from pathlib import Path

from dali_pipeline import prepare


def run(*arguments: object) -> None:
    prepare.main([*map(str, arguments), "--processes", "1"])


def state(folder: Path) -> dict[str, tuple]:
    """Every file with what would show that it was written again."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_ino)
        for path in folder.rglob("*")
        if path.is_file()
    }
