"""Does a claim of the paper hold here? Two tests a claim, corrected for their number.

A claim is about the seeds of two settings: one has the lower error, or both have the same within a
margin. *Holds* and *does not hold* are both findings. Where neither is found, a second test may
find less: that the difference is *less than in the paper*, or, where equality is claimed, that the
larger minibatch is *not worse* by the margin. At most 5 in 100 studies have any finding that is
false. All else is *undecided*, with one seed everything. Settings share seeds, but are not paired:
pairs gain only where errors correlate by seed, and else cost half of the degrees of freedom.
``--design`` prints the correlations.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import NamedTuple

from benchmarks.study.rows import BY_NAME
from benchmarks.study.significance import LEVEL, Comparison, equal, holm, lower
from hvd_utils.inspect.outcome import Outcome

HOLDS, FAILS, UNDECIDED, UNKNOWN = "holds", "does not hold", "undecided", "not measured"
LESS, NOT_WORSE = "less than in the paper", "not worse"
# Half of what the paper's large minibatch loses without warmup (Table 1: 24.84 - 23.74 = 1.10): a
# loss that gradual warmup is said to prevent is told from none.
MARGIN = 0.55  # percentage points
CURVES_MARGIN = 1.0  # of training error: what the eye sees in the paper's plots of 0 to 100

Outcomes = Mapping[str, Outcome]


def final_errors(outcome: Outcome) -> list[float]:
    """Return each seed's error, percent."""
    return [*outcome.errors.values()]


def training_errors(outcome: Outcome) -> list[float]:
    """Return each seed's training error after warmup, percent: mean after a third of the epochs."""
    curves = (curve.train for curve in outcome.curves.values())
    return [statistics.fmean(train[len(train) // 3 :]) for train in curves]


class Claim(NamedTuple):
    """That setting ``one`` has a lower error than ``other``, or, with a margin, an equal one."""

    text: str
    one: str
    other: str
    margin: float = 0  # percentage points
    figure: Callable[[Outcome], list[float]] = final_errors

    @property
    def effect(self) -> float | None:
        """The paper's difference, percentage points; None where it has none."""
        one, other = BY_NAME[self.one].paper, BY_NAME[self.other].paper
        return other.error - one.error if one and other else None

    def compare(self, of: Outcomes) -> Comparison:
        """Return the test's finding on the seeds of both settings, at least two of each."""
        one, other = self.figure(of[self.one]), self.figure(of[self.other])
        return equal(one, other, self.margin) if self.margin else lower(one, other)

    def compare_less(self, of: Outcomes) -> tuple[str, Comparison] | None:
        """Return the second test's verdict, were it to find it, and its finding; None: no test."""
        one, other = self.figure(of[self.one]), self.figure(of[self.other])
        if self.margin:
            return NOT_WORSE, lower(one, other, -self.margin)
        if self.effect is None:
            return None
        return LESS, lower(other, one, -self.effect)


CLAIMS = (
    Claim("Table 1: 32 workers equal 1", "gradual-warmup", "baseline", MARGIN),
    Claim("Table 1: gradual warmup beats none", "gradual-warmup", "no-warmup"),
    Claim("Table 1: none beats constant", "no-warmup", "constant-warmup"),
    Claim("Table 2a: linear scaling beats the square root", "gradual-warmup", "sqrt"),
    Claim("Table 2a: linear scaling beats none", "gradual-warmup", "unscaled"),
    Claim("Table 2b: γ = 0 beats γ = 1 at 32 workers", "gradual-warmup", "gamma-1"),
    Claim(
        "Figure 2: training curves meet after warmup",
        *("gradual-warmup", "baseline", CURVES_MARGIN, training_errors),
    ),
    Claim("Figure 1: 16 workers equal 1", "workers-16", "baseline", MARGIN),
    Claim("Figure 1: 64 workers lose", "baseline", "workers-64"),
    Claim("LARS beats SGD at 64 workers", "lars-64", "workers-64"),
    Claim("LARS beats SGD with its schedule", "lars-64", "workers-64-polynomial"),
)


# How many tests that are, where all is measured: each claim's first, and the second it may have.
TESTS = len(CLAIMS) + sum(bool(one.margin) or one.effect is not None for one in CLAIMS)


class Verdict(NamedTuple):
    """What was found of a claim: one of the words above, and what it rests on."""

    claim: Claim
    verdict: str
    found: Comparison | None = None  # None without two seeds of both settings
    p: float | None = None  # of the test that the verdict rests on, corrected for their number


def judge(outcomes: Outcomes) -> list[Verdict]:
    """Return a verdict for each claim, the tests of those measured being one family."""
    measured = [one for one in CLAIMS if {one.one, one.other} <= outcomes.keys()]
    enough = [
        one
        for one in measured
        if min(len(outcomes[name].errors) for name in (one.one, one.other)) > 1
    ]
    first = {one.text: one.compare(outcomes) for one in enough}
    second = {one.text: less for one in enough if (less := one.compare_less(outcomes))}
    p_values = {(text, 1): found.p for text, found in first.items()}
    p_values |= {(text, 2): comparison.p for text, (_, comparison) in second.items()}
    corrected = holm(p_values)
    verdicts = []
    for claim in CLAIMS:
        if claim.text not in first:
            verdicts.append(Verdict(claim, UNDECIDED if claim in measured else UNKNOWN))
            continue
        found, p = first[claim.text], corrected[claim.text, 1]
        verdict = (HOLDS if found.claimed else FAILS) if p <= LEVEL else UNDECIDED
        if verdict == UNDECIDED and claim.text in second:
            weaker, comparison = second[claim.text]
            if comparison.claimed and corrected[claim.text, 2] <= LEVEL:
                verdict, p = weaker, corrected[claim.text, 2]
        verdicts.append(Verdict(claim, verdict, found, p))
    return verdicts
