"""Numbers with their nouns, for lines that somebody reads."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return ``1 host``, ``2 hosts``, ``1,024 processes``."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"
