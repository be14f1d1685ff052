"""Decide whether ``slurm/launch.sh`` starts a launch again.

python -m hvd_utils.requeue RUN --code CODE    exit code 75: again; 0: done; else: give up
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from hvd_utils.cli.argument_types import whole
from hvd_utils.cli.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_RESUME
from hvd_utils.cli.files import replace_text
from hvd_utils.cli.parser import Parser
from hvd_utils.faults import crash_report
from hvd_utils.faults.signals import EXIT_INTERRUPTED
from hvd_utils.run.event_log import last_event
from hvd_utils.run.folder import list_checkpoints, step_of

RECORD = "restarts.json"
EXIT_NO_START = 213  # of Open MPI 5's mpirun, where no place is found for the ranks
NEVER_AGAIN = {
    EXIT_BAD_INPUT: "what was given cannot work; the line with 'error', or preflight's table, says "
    "what",
    EXIT_INTERRUPTED: "it was interrupted",
    EXIT_NO_START: "mpirun could not start the ranks; its text above says why (RANKS_PER_NODE, or "
    "the host file's slots)",
}


@dataclass(frozen=True)
class Restarts:
    """How often in a row a run was started again since its newest checkpoint, of ``step``."""

    in_a_row: int = 0
    step: int = 0


@dataclass(frozen=True)
class Ended:
    """How a launch ended."""

    code: int  # the launcher's
    told: bool  # whether it was asked to stop
    finished: bool  # whether the run's log has an ``end`` event
    step: int  # of the newest checkpoint, 0 without one


@dataclass(frozen=True)
class Verdict:
    """What is to follow: the code (75: start again), why, and what to remember for the next."""

    code: int
    reason: str
    restarts: Restarts


def judge(ended: Ended, before: Restarts, max_failures: int) -> Verdict:
    """Return what follows an end: at most ``max_failures`` restarts in a row without progress."""
    # Told to stop, a run whose end is of an earlier launch leaves by EXIT_RESUME: it was prolonged.
    if ended.finished and (
        ended.code == 0 or (ended.told and ended.code not in (EXIT_BAD_INPUT, EXIT_RESUME))
    ):
        return Verdict(0, "done", Restarts(step=ended.step))
    if ended.code in NEVER_AGAIN:
        reason = f"not started again: code {ended.code}, {NEVER_AGAIN[ended.code]}"
        return Verdict(ended.code, reason, before)
    told = ended.told or ended.code == EXIT_RESUME
    what = _describe(ended)
    if ended.step > before.step:
        restarts = Restarts(0 if told else 1, ended.step)
    else:
        restarts = Restarts(before.in_a_row + 1, ended.step)
    if restarts.in_a_row > max_failures:
        reason = (
            f"not started again: {what}, and {max_failures} restarts (MAX_FAILURES) brought no "
            f"checkpoint after step {ended.step}: see what failed, then start the same command"
        )
        code = ended.code if ended.code not in (0, EXIT_RESUME) else EXIT_FAILED
        return Verdict(code, reason, Restarts(step=ended.step))
    place = f"from step {ended.step}" if ended.step else "from the beginning"
    count = ""
    if restarts.in_a_row:
        count = f", {restarts.in_a_row} of {max_failures} without a new checkpoint"
    return Verdict(EXIT_RESUME, f"{what}: starting again {place}{count}", restarts)


def _describe(ended: Ended) -> str:
    if ended.told or ended.code == EXIT_RESUME:
        return "told to stop"
    if ended.code == 0:
        return "the launcher reported success, but the run's log has no end: a host may be lost"
    return f"the job failed with code {ended.code}"


def finished(run: Path) -> bool:
    """Return whether the last thing that a run logged is its end."""
    return last_event(run) == "end"


def main() -> None:
    """Judge, record and print the verdict, and exit with its code."""
    parser = Parser(prog="python -m hvd_utils.requeue", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("--code", type=int, required=True, help="exit code of the launcher")
    parser.add_argument("--told", action="store_true", help="it was told to stop")
    parser.add_argument("--max-failures", type=whole, default=3, help="(default: 3)")
    given = parser.parse_args()
    checkpoints = list_checkpoints(given.run)
    step = step_of(checkpoints[0]) if checkpoints else 0
    ended = Ended(given.code, given.told, finished(given.run), step)
    record = given.run / RECORD
    verdict = judge(ended, _read(record), given.max_failures)
    for line in crash_report.traces(given.run):
        print(line, flush=True)
    print(verdict.reason, flush=True)
    replace_text(record, json.dumps(asdict(verdict.restarts)) + "\n")
    sys.exit(verdict.code)


def _read(record: Path) -> Restarts:
    try:
        found = Restarts(**json.loads(record.read_text()))
        return found if all(type(n) is int for n in asdict(found).values()) else Restarts()
    except (OSError, ValueError, TypeError, RecursionError):  # none yet, or half-written
        return Restarts()
