"""Fair timing: candidates take turns in each round; medians and ratios are reported."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any


def taking_turns(
    candidates: Mapping[str, Callable[[], float]], rounds: int, *, uncounted: int = 1
) -> dict[str, list[float]]:
    """Return each candidate's results, one a round, after ``uncounted`` rounds.

    Every second round goes backwards, so that a machine that slows down is unfair to no candidate.
    """
    results: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(uncounted + rounds):
        names = list(candidates)
        for name in names if round_number % 2 == 0 else reversed(names):
            result = candidates[name]()
            if round_number >= uncounted:
                results[name].append(result)
    return results


def interleaved(candidates: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each candidate in each round, after one round that is not counted."""
    return taking_turns({name: partial(_seconds, run) for name, run in candidates.items()}, rounds)


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def ratios(rates: Mapping[str, list[float]], base: str) -> dict[str, float]:
    """Return by name the median over rounds of a candidate's rate by the base's in that round."""
    return {
        name: statistics.median(a / b for a, b in zip(values, rates[base], strict=True))
        for name, values in rates.items()
    }


def machine() -> str:
    """Return in one line what this was measured on."""
    cores = len(os.sched_getaffinity(0))
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.machine()
    text = f"{cores} cores of {cpu}"
    import torch  # here, since not every benchmark needs it

    if torch.cuda.is_available():
        text += f", {torch.cuda.get_device_name()}"
    return text


def write_json(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Write the figures and the machine, if ``file`` is given."""
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n")
