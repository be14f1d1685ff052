"""What ``benchmarks.gpu`` measures, and what follows from it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Case:
    """One way to train, and what was measured of it."""

    batch: int  # n
    workers: int  # k, fused in one pass
    precision: str
    compile: str = "none"
    loader: str = "synthetic"
    seconds: list[float] = field(default_factory=list)  # of a step, one a round
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return ``bf16, n = 32 x 8, compiled, JPEGs``."""
        parts = [self.precision, f"n = {self.batch}" + (f" x {self.workers}" * (self.workers > 1))]
        parts += [{"default": "compiled", "cudagraphs": "CUDA graphs"}.get(self.compile, "")]
        parts += ["JPEGs"] * (self.loader == "dali")
        return ", ".join(filter(None, parts))

    @property
    def rate(self) -> float:
        """Return images/s, a median over rounds."""
        return self.batch * self.workers / statistics.median(self.seconds)


def cases(n: int, workers: int, precisions: Sequence[str], compiled: Sequence[str]) -> list[Case]:
    """Return what to measure, the most telling first: time may run out."""
    first = precisions[0]
    sizes = ((n * workers, 1), (n, workers))
    eager = [Case(batch, k, p) for batch, k in sizes for p in precisions]
    quick = [Case(n * workers, 1, first, loader="dali"), Case(n, workers, first, loader="dali")]
    slow = [
        Case(batch, k, p, mode)
        for mode in compiled
        for p in precisions
        for batch, k in sizes
        if mode == "default" or p == first
    ]
    if compiled:
        slow.insert(1, Case(n * workers, 1, first, compiled[0], "dali"))
    return eager + quick + slow


def ratios(done: Sequence[Case]) -> dict[str, float]:
    """Return the figures that the cases allow, each of the quickest way to compute it."""
    whole, rates = max(case.batch for case in done), {}
    first = done[0].precision
    for case in done:
        kind = case.precision, case.batch == whole, case.loader
        rates[kind] = max(rates.get(kind, 0.0), case.rate)
    figures = {
        f"{precision}_images_per_second": rate
        for (precision, is_whole, loader), rate in rates.items()
        if is_whole and loader == "synthetic"
    }
    best = rates[first, True, "synthetic"]
    if (first, True, "dali") in rates:
        figures["jpegs_vs_made_up"] = rates[first, True, "dali"] / best
    if (first, False, "synthetic") in rates:
        figures["fused_vs_whole"] = rates[first, False, "synthetic"] / best
    eager = {case.name: case.rate for case in done if case.compile == "none"}
    for case in done:
        if case.compile != "none":
            plain = Case(case.batch, case.workers, case.precision, loader=case.loader).name
            figures[f"{case.name} vs not"] = case.rate / eager[plain]
    return figures


def planner(done: Sequence[Case], model: str) -> dict[str, Any]:
    """Return the step that ``python -m hvd_utils.scaling --step`` takes: the quickest fused one."""
    made_up = [case for case in done if case.loader == "synthetic"]
    best = max(made_up, key=lambda case: (case.workers, case.rate))
    return {
        "model": model,
        "seconds_per_step": statistics.median(best.seconds),
        "images_per_step": best.batch * best.workers,
        "backward_share": best.facts["backward_share"],
    }
