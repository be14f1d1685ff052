"""How many seeds the study needs, on paper before it runs: ``python -m benchmarks.study --design``.

A claim is to be decided with 90 % probability where the paper's difference is the true one, or no
difference where the claim is equality. Spreads come from the finished runs in --output where a
setting has two seeds or more, else from PILOT. The level is that of Holm's first step: where some
claims are clear, the others need fewer seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from benchmarks.study.significance import LEVEL, MOST_SEEDS, seeds_needed
from benchmarks.study.verdicts import CLAIMS, TESTS, Claim, Outcomes, final_errors

POWER = 0.9
# Standard deviations of the error, percentage points, of 5 seeds of the earlier study at ed45def,
# which had 20 classes and 2,000 validation images (docs/study.md).
PILOT: Mapping[str, float] = {
    "baseline": 0.18,
    "no-warmup": 0.43,
    "gradual-warmup": 0.25,
    "unscaled": 0.36,
    "sqrt": 0.43,
    "gamma-1": 0.56,
    "workers-16": 0.27,
    "lars-64": 0.16,
    "workers-64-polynomial": 1.56,
    "constant-warmup": 36.24,  # one of the five diverged
    "workers-64": 8.23,
}


def design(outcomes: Outcomes) -> list[str]:
    """Return a table of the claims with the seeds of each setting that they need, as Markdown."""
    lines = [
        f"{len(CLAIMS)} claims by {TESTS} tests, {LEVEL:.0%} chance of any false verdict, "
        f"{POWER:.0%} power:",
        "",
        "| claim | to be told | standard deviations | correlation by seed | seeds |",
        "|---|---|---|---|---|",
    ]
    return lines + [_line(claim, outcomes) for claim in CLAIMS]


def _line(claim: Claim, outcomes: Outcomes) -> str:
    effect = 0.0 if claim.margin else _effect(claim)
    told = f"within {claim.margin:g}" if claim.margin else f"{effect:.2f}"
    spreads = [_spread(claim, name, outcomes) for name in (claim.one, claim.other)]
    known = [spread for spread in spreads if spread is not None]
    seeds = "no pilot"
    if len(known) == 2:
        needed = seeds_needed((known[0], known[1]), effect, LEVEL / TESTS, POWER, claim.margin)
        seeds = str(needed or f"over {MOST_SEEDS}")
    shown = ", ".join(f"{spread:.2f}" for spread in known)
    return f"| {claim.text} | {told} | {shown} | {_correlation(claim, outcomes)} | {seeds} |"


def _effect(claim: Claim) -> float:
    """Return the paper's difference, percentage points; of LARS, what SGD loses at 64."""
    if claim.effect is not None:
        return claim.effect
    loss = Claim("64 workers lose", "baseline", "workers-64").effect
    assert loss is not None  # the paper has both
    return loss


def _spread(claim: Claim, name: str, outcomes: Outcomes) -> float | None:
    """Return the standard deviation over a setting's seeds, None where nothing is known."""
    if name in outcomes and len(outcomes[name].errors) > 1:
        return statistics.stdev(claim.figure(outcomes[name]))
    return PILOT.get(name) if claim.figure is final_errors else None


def _correlation(claim: Claim, outcomes: Outcomes) -> str:
    """Return how the seeds' figures of both settings correlate, of which pairing could profit."""
    if not {claim.one, claim.other} <= outcomes.keys():
        return ""
    one, other = (
        dict(zip(outcomes[name].errors, claim.figure(outcomes[name]), strict=True))
        for name in (claim.one, claim.other)
    )
    common = sorted(one.keys() & other.keys())
    pairs = [one[seed] for seed in common], [other[seed] for seed in common]
    if len(common) < 3 or any(len(set(values)) == 1 for values in pairs):
        return ""
    return f"{statistics.correlation(*pairs):+.2f} of {len(common)}"
