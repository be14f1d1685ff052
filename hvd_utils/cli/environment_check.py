"""Whether this Python is the one of the set-up, told before anything needs its packages."""

from __future__ import annotations

import importlib.machinery
import sys

from hvd_utils.cli.errors import EXIT_BAD_INPUT
from hvd_utils.cli.ranks import launched_rank


def require_packages() -> None:
    """End the process with one line where PyTorch is not installed for this Python."""
    if importlib.machinery.PathFinder.find_spec("torch") is not None:
        return
    if launched_rank() == 0:
        print(
            f"error: {sys.executable} has no PyTorch: run make setup, then source "
            ".venv/bin/activate, in each shell and job",
            file=sys.stderr,
        )
    raise SystemExit(EXIT_BAD_INPUT)
