"""The job with a pause of PAUSE seconds in every step, as launchers name the first options."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

sys.argv.insert(1, os.environ["PAUSE"])
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
runpy.run_path(
    str(Path(__file__).resolve().parents[1] / "parallel" / "paced_job.py"), run_name="__main__"
)
