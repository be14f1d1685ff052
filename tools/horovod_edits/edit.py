"""What is changed in Horovod's source is a list of these."""

from __future__ import annotations

from typing import NamedTuple


class Edit(NamedTuple):
    """One replacement in Horovod's source; ``old`` must occur exactly once."""

    file: str
    old: str
    new: str
    why: str
