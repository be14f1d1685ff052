"""The job with a pause of PAUSE seconds in every step, until Slurm starts it again.

The pause does not come as an argument: launch.sh puts its own first.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

again = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
sys.argv.insert(1, "0" if again else os.environ["PAUSE"])
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
runpy.run_path(str(Path(__file__).with_name("paced_job.py")), run_name="__main__")
