"""The table and the JSON of a preflight, complete or broken off."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hvd_utils.preflight.verdict import FAIL, OK, WARN, Verdict, exit_code, table, worst

if TYPE_CHECKING:
    from hvd_utils.preflight.checks.table import Preflight
    from hvd_utils.preflight.coordinator import Coordinator

WORDS = {OK: "all is well", WARN: "warnings: it will run, see above", FAIL: "failed: see above"}


def show(lead: Coordinator, preflight: Preflight, began: float, broken_off: str = "") -> int:
    """Print the table, write --json, and return the exit code; see ``exit_code``.

    ``broken_off`` is why not all checks were made.
    """
    verdicts = [*lead.verdicts(), *preflight.verdicts]
    if broken_off:
        verdicts += [*lead.missing(), Verdict("preflight", FAIL, broken_off, machine=True)]
    seconds = time.monotonic() - began
    print(f"preflight of {lead.here.size} ranks\n{table(verdicts)}")
    print(f"{WORDS[worst(verdicts)]} ({seconds:.0f} s)", flush=True)
    if lead.here.options.json:
        _write(lead, preflight, verdicts, seconds)
    return exit_code(verdicts)


def _write(
    lead: Coordinator, preflight: Preflight, verdicts: Sequence[Verdict], seconds: float
) -> None:
    content = {
        "verdict": worst(verdicts),
        "ranks": lead.here.size,
        "hosts": lead.hosts,
        "silent": lead.silent,
        "seconds": seconds,
        "checks": [verdict.as_dict() for verdict in verdicts],
        "figures": preflight.figures,
    }
    path = lead.here.options.json
    try:
        path.write_text(json.dumps(content, indent=2) + "\n")
    except OSError as error:
        print(f"cannot write {path}: {error.strerror}", flush=True)
