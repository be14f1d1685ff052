"""Where this project's code is: in a checkout, or installed from its wheel."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # the folder that holds hvd_utils
RECIPES = ROOT / "hvd_utils/recipes"  # in a checkout a link to recipes/


def is_checkout() -> bool:
    """Return whether the code runs from a checkout, not from an installed wheel."""
    return (ROOT / "setup.cfg").exists()


def cache_folder() -> Path:
    """Return the user's folder for files that can be made again."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "imagenet-in-1-hour"


def git(*arguments: str) -> str | None:
    """Return what git prints about the checkout; None where there is no git or no checkout."""
    if not is_checkout():  # an installed wheel may lie in another project's repository
        return None
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
