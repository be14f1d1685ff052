"""What ``benchmarks.gpu`` measures, and what follows from it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DECODE = ("cpu", "gpu", "hardware")  # of --decode; the job's default first


@dataclass
class Case:
    """One way to train, and what was measured of it."""

    batch: int  # n
    workers: int  # k, fused in one pass
    precision: str
    compile: str = "none"
    loader: str = "synthetic"
    ways: Mapping[str, str] = field(default_factory=dict)  # further settings of the job
    seconds: list[float] = field(default_factory=list)  # of a step, one a round
    facts: dict[str, Any] = field(default_factory=dict)
    why_not: str = ""  # it was not measured

    @property
    def name(self) -> str:
        """Return ``bf16, n = 32 x 8, compiled, JPEGs, decode cpu``."""
        parts = [self.precision, f"n = {self.batch}" + (f" x {self.workers}" * (self.workers > 1))]
        parts += [{"default": "compiled", "cudagraphs": "CUDA graphs"}.get(self.compile, "")]
        parts += ["JPEGs"] * (self.loader == "dali")
        parts += [f"{name.replace('_', ' ')} {way}" for name, way in self.ways.items()]
        return ", ".join(filter(None, parts))

    @property
    def rate(self) -> float:
        """Return images/s, a median over rounds."""
        return self.batch * self.workers / statistics.median(self.seconds)

    def settings(self) -> dict[str, Any]:
        """Return the settings of the job that make this case."""
        return {
            "batch_per_worker": self.batch,
            "workers": self.workers,
            "precision": self.precision,
            "compile": self.compile,
            "loader": self.loader,
            **self.ways,
        }


def cases(
    n: int,
    workers: int,
    precisions: Sequence[str],
    compiled: Sequence[str],
    *,
    jpegs: bool = True,
    ways: bool = True,
) -> list[Case]:
    """Return what to measure, the most telling first; time may run out.

    ``compiled`` are modes of --compile, the quickest last. Without ``ways`` nothing is measured in
    more ways than the job's default: a CPU has no others.
    """
    first, *others = precisions
    quickest = ("none", *compiled)[-1]
    whole, fused = (n * workers, 1), (n, workers)
    decode = [{"decode": way} for way in DECODE] if ways else [{}]
    eager = [Case(*size, first) for size in (whole, fused)]
    quick = [Case(*size, first, quickest) for size in (whole, fused)]
    read = [
        Case(*whole, first, quickest, "dali", decode[0]),
        Case(*whole, first, "none", "dali", decode[0]),
        *(Case(*whole, first, quickest, "dali", way) for way in decode[1:]),
    ]
    # The batch norm that the job does not take: see kernel_choice.
    norms = [
        Case(*whole, first, ways={"batch_norm": "triton"}),
        Case(*fused, first, ways={"batch_norm": "torch"}),
        Case(*whole, first, quickest, ways={"batch_norm": "torch"}),
        Case(*whole, first, quickest, ways={"pad_stem": "on"}),
    ]
    # PyTorch has cuDNN's batch norm in fp16 and tf32, and another in bf16.
    further = [Case(*whole, one, mode) for one in others for mode in ("none", quickest)]
    modes = [Case(*size, first, mode) for mode in compiled[:-1] for size in (whole, fused)]
    found = {
        case.name: case for case in (*eager, *quick, *read * jpegs, *norms * ways, *further, *modes)
    }
    return list(found.values())


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
    best = rates.get((first, True, "synthetic"))
    if best and (first, True, "dali") in rates:
        figures["jpegs_vs_made_up"] = rates[first, True, "dali"] / best
    if best and (first, False, "synthetic") in rates:
        figures["fused_vs_whole"] = rates[first, False, "synthetic"] / best
    measured = {case.name: case.rate for case in done}
    for case in done:
        if case.compile != "none":
            eager = Case(
                case.batch, case.workers, case.precision, loader=case.loader, ways=case.ways
            ).name
            if eager in measured:
                figures[f"{case.name} vs not"] = case.rate / measured[eager]
    return figures


def planner(done: Sequence[Case], model: str) -> dict[str, Any] | None:
    """Return the step that ``python -m hvd_utils.scaling --step`` takes: the quickest fused one."""
    made_up = [case for case in done if case.loader == "synthetic"]
    if not made_up:
        return None
    best = max(made_up, key=lambda case: (case.workers, case.rate))
    return {
        "model": model,
        "seconds_per_step": statistics.median(best.seconds),
        "images_per_step": best.batch * best.workers,
        "backward_share": best.facts["backward_share"],
    }
