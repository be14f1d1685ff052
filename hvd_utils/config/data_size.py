"""Sizes of data, as a user writes them: 500GB."""

from __future__ import annotations

import re

_TEXT = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def parse_bytes(text: str | int) -> int:
    """Return the bytes that ``500GB``, ``1.5TB`` or ``1000000`` means; units are powers of 1000.

    Raises ValueError saying what is wrong.
    """
    found = _TEXT.fullmatch(str(text).strip())
    size = int(float(found[1]) * _UNITS[found[2].lower()]) if found else 0
    if size < 1:
        raise ValueError("give a size, as 500GB, 1.5TB or 800MB")
    return size
