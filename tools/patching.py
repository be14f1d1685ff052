"""Apply patches in git's format, exactly: every line of context where the patch says it is.

``git apply`` and ``patch`` do the same and more; a machine that builds Horovod may have neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")


class DoesNotFit(Exception):
    """A patch is not of this source; the text names the patch, the file and the line."""


def apply(patch: Path, source: Path) -> list[str]:
    """Apply a patch to the files below ``source``; return their names.

    Raises DoesNotFit, with nothing changed, where a line is not as the patch has it.
    """
    changed = {}
    for name, hunks in _files(patch.read_text(encoding="utf-8").splitlines(keepends=True)):
        path = source / name
        if not path.is_file():
            raise DoesNotFit(f"{patch.name}: there is no {name}")
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        for first, old, new in reversed(hunks):  # from the end: the places before stay
            if lines[first - 1 : first - 1 + len(old)] != old:
                raise DoesNotFit(f"{patch.name}: {name} is not as expected at line {first}")
            lines[first - 1 : first - 1 + len(old)] = new
        changed[path] = "".join(lines)
    if not changed:
        raise DoesNotFit(f"{patch.name}: it changes nothing")
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8")
    return [str(path.relative_to(source)) for path in changed]


def series(folder: Path) -> list[Path]:
    """Return the patches of a folder in the order of its file ``series``."""
    return [folder / name for name in (folder / "series").read_text().split()]


def _files(lines: list[str]) -> Iterator[tuple[str, list[tuple[int, list[str], list[str]]]]]:
    """Yield the name of each file with its hunks: first line, lines before, lines after."""
    place = 0
    while place < len(lines):
        if not lines[place].startswith("+++ b/"):
            place += 1
            continue
        name, hunks = lines[place][6:].strip(), []
        place += 1
        while place < len(lines) and (head := _HUNK.match(lines[place])):
            first, old_count, new_count = (int(part or 1) for part in head.groups())
            old, new = [], []
            while len(old) < old_count or len(new) < new_count:
                place += 1
                kind, text = lines[place][0], lines[place][1:]
                old += [text] * (kind != "+")
                new += [text] * (kind != "-")
            hunks.append((first, old, new))
            place += 1
        yield name, hunks
