"""Everything that is changed in Horovod 0.28.1's source, each with its reason."""

from __future__ import annotations

from horovod_edits import bfloat16, building, elastic, in_place, launching, overlap, waiting
from horovod_edits.edit import Edit

__all__ = ["EDITS", "Edit"]

EDITS: list[Edit] = [
    edit
    for topic in (building, launching, elastic, waiting, in_place, overlap, bfloat16)
    for edit in topic.EDITS
]
