"""What ``benchmarks.gpu`` measures, and what follows from it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hvd_utils.config.settings import Settings

# Settings of the job that choose one of several ways, each a case of its own; a way is measured
# where the job has the setting. The first way of each is what the other cases take, by default.
DECODE = "decode", ("cpu", "gpu", "hardware")  # of cases with JPEGs
BATCH_NORM = "batch_norm", ("triton", "torch")  # of cases without
STEM = "pad_stem", ("off", "on")  # likewise


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


def ways(
    setting: tuple[str, Sequence[str]], known: Mapping[str, object] = Settings.model_fields
) -> list[dict[str, str]]:
    """Return each way of a setting, as ``Case.ways``; nothing to set where the job lacks it."""
    name, values = setting
    return [{name: value} for value in values] if name in known else [{}]


def cases(
    n: int,
    workers: int,
    precisions: Sequence[str],
    compiled: Sequence[str],
    *,
    jpegs: bool = True,
    decode: Sequence[Mapping[str, str]] | None = None,
    batch_norm: Sequence[Mapping[str, str]] | None = None,
    stem: Sequence[Mapping[str, str]] | None = None,
) -> list[Case]:
    """Return what to measure: what is ready soonest first, then the most telling; time may run out.

    ``compiled`` are modes of --compile, the quickest last; ``decode``, ``batch_norm`` and ``stem``
    the ways of the job, the first of each taken where nothing else is said.
    """
    decode = ways(DECODE) if decode is None else decode
    batch_norm = ways(BATCH_NORM) if batch_norm is None else batch_norm
    stem = ways(STEM) if stem is None else stem
    first, *others = precisions
    whole, fused = (n * workers, 1), (n, workers)
    found = [Case(*whole, first), Case(*fused, first)]
    if jpegs:
        found += [Case(*whole, first, loader="dali", ways=way) for way in decode]
    found += [Case(*size, first, ways=way) for way in batch_norm[1:] for size in (whole, fused)]
    halves = [p for p in others if p in ("bf16", "fp16")]
    found += [Case(*whole, p) for p in halves]
    # PyTorch has cuDNN's batch norm in fp16, and another in bf16.
    found += [Case(*whole, p, ways=way) for p in halves for way in batch_norm[1:]]
    found += [Case(*whole, first, ways=way) for way in stem[1:]]
    for mode in reversed(compiled):
        found += [Case(*whole, first, mode), Case(*fused, first, mode)]
        if jpegs:
            found.append(Case(*whole, first, mode, "dali", decode[0]))
    found += [Case(*whole, p) for p in others if p not in ("bf16", "fp16")]
    return found


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
