"""The project's Markdown: its pages, links, commands and headings."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
_LINK = re.compile(r"!?\[([^\]]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def links(page: Path) -> Iterator[tuple[str, str]]:
    """Yield text and target of each link outside code."""
    yield from _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code(page: Path) -> Iterator[str]:
    """Yield what stands in backticks in a page's text."""
    yield from re.findall(r"`([^`\n]+)`", _FENCE.sub("", page.read_text(encoding="utf-8")))


def commands(page: Path) -> Iterator[str]:
    """Yield each command of a page's shell blocks; a loop is one command."""
    for language, block in _FENCE.findall(page.read_text(encoding="utf-8")):
        if language != "bash":
            continue
        lines: list[str] = []
        for line in block.splitlines():
            lines.append(line)
            text = "\n".join(lines)
            if line.endswith("\\") or not _is_whole(text):
                continue
            if text.strip() and not text.startswith("#"):
                yield re.sub(r"\s+# .*", "", text)
            lines = []
        assert not lines, f"{page.name}: a command has no end: {lines}"


def _is_whole(text: str) -> bool:
    return subprocess.run(["bash", "-n", "-c", text], capture_output=True).returncode == 0
