"""Does a claim of the paper hold here? From means, standard deviations and number of runs.

*Better* is decided by the standard error of the difference of two means: less than 2 of it is
within the noise; or by every run of one being better than every run of the other, where a run that
diverged makes the mean say little (by chance once in 252, for 5 and 5). *Equal* is decided by the
spread of single runs, which is what the paper means where it says that errors match: at most 2
standard deviations of the difference of two runs, and a percentage point. With one seed there is no
spread, and differences are told as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from benchmarks.study.rows import BY_WORKERS, LARGE, LARS_BY_WORKERS, SGD_BY_SCHEDULE
from hvd_utils.inspect.outcome import Outcome

HOLDS, NOISE, FAILS, UNKNOWN = "holds", "within the noise", "does not hold", "not measured"
TRUST = 2.0  # standard errors, or deviations
ONE_SEED = 0.5  # percentage points taken for equal where there is no spread
MOST = 1.0  # percentage points that may be equal at all
ENOUGH = 4  # runs of each, for their order to say something
CURVES_APART = 1.0  # percentage points of training error that the eye sees in a plot of 0 to 100

Outcomes = Mapping[str, Outcome]


class Verdict(NamedTuple):
    """What was found of a claim, one of the words above, and the figures it rests on."""

    claim: str
    verdict: str
    because: str


def better(one: Outcome, other: Outcome) -> str:
    """Return whether ``one`` has the lower error: holds, within the noise or does not hold."""
    gain = other.mean - one.mean
    if one.std is None or other.std is None:
        return HOLDS if gain > 0 else FAILS
    if min(len(one.errors), len(other.errors)) >= ENOUGH:
        if max(one.errors.values()) < min(other.errors.values()):
            return HOLDS
        if min(one.errors.values()) > max(other.errors.values()):
            return FAILS
    noise = math.hypot(one.std / len(one.errors) ** 0.5, other.std / len(other.errors) ** 0.5)
    if abs(gain) <= TRUST * noise:
        return NOISE
    return HOLDS if gain > 0 else FAILS


def equal(one: Outcome, other: Outcome) -> bool:
    """Return whether two errors are equal within the spread of their runs."""
    if one.std is None or other.std is None:
        return abs(one.mean - other.mean) <= ONE_SEED
    return abs(one.mean - other.mean) <= min(TRUST * math.hypot(one.std, other.std), MOST)


def large_equals_small(of: Outcomes) -> tuple[str, str]:
    """Table 1: with gradual warmup the large minibatch loses nothing."""
    small, large = of["baseline"], of["gradual-warmup"]
    return (HOLDS if equal(small, large) else FAILS), f"{small} with 1 worker, {large} with {LARGE}"


def order_of_warmups(of: Outcomes) -> tuple[str, str]:
    """Table 1: gradual warmup beats none, which beats constant warmup."""
    gradual, none, constant = (of[f"{kind}-warmup"] for kind in ("gradual", "no", "constant"))
    first, second = better(gradual, none), better(none, constant)
    because = f"gradual {gradual}, none {none} ({first}), constant {constant} ({second})"
    return _all(first, second), because


def scaled_beats_others(of: Outcomes) -> tuple[str, str]:
    """Table 2a: linear scaling beats the square root and no scaling."""
    linear, root, none = of["gradual-warmup"], of["sqrt"], of["unscaled"]
    first, second = better(linear, root), better(linear, none)
    because = f"linear {linear}, square root {root} ({first}), none {none} ({second})"
    return _all(first, second), because


def zero_gamma_helps(of: Outcomes) -> tuple[str, str]:
    """Table 2b: γ = 0 at the start helps, most where the minibatch is large."""
    zero, one = of["gradual-warmup"], of["gamma-1"]
    because = f"{LARGE} workers: γ = 0 {zero}, γ = 1 {one}"
    if {"baseline", "baseline-gamma-1"} <= of.keys():
        because += f"; 1 worker: {of['baseline']} and {of['baseline-gamma-1']}"
    return better(zero, one), because


def curves_match(of: Outcomes) -> tuple[str, str]:
    """Figure 2c: after warmup the training error of the large minibatch follows the small one's."""
    small, large = of["baseline"].train_curve(), of["gradual-warmup"].train_curve()
    gaps = [abs(a[0] - b[0]) for a, b in zip(small, large, strict=True)]
    spread = [math.hypot(a[1], b[1]) for a, b in zip(small, large, strict=True)]
    apart = [gap > max(CURVES_APART, TRUST * s) for gap, s in zip(gaps, spread, strict=True)]
    joined = max((epoch + 1 for epoch, far in enumerate(apart) if far), default=0)
    because = (
        f"training errors {gaps[0]:.1f} points apart after epoch 1, {gaps[-1]:.2f} at the end; "
        + (f"together from epoch {joined + 1} on" if joined < len(gaps) else "apart to the end")
    )
    return (HOLDS if joined < len(gaps) / 3 else FAILS), because


def there_is_an_elbow(of: Outcomes) -> tuple[str, str]:
    """Figure 1: errors stay equal up to some minibatch and rise fast beyond it."""
    found = {workers: of[name] for workers, name in BY_WORKERS.items() if name in of}
    small = found.pop(1)
    flat = [workers for workers, one in found.items() if equal(one, small)]
    greatest = max(found)
    rises = better(small, found[greatest]) == HOLDS and not equal(small, found[greatest])
    because = ", ".join(f"{workers}: {one}" for workers, one in {1: small, **found}.items())
    return (HOLDS if flat and rises and max(flat) < greatest else FAILS), f"workers {because}"


def lars_moves_the_elbow(of: Outcomes) -> tuple[str, str]:
    """Beyond the paper (You et al. 2017): LARS keeps the error at minibatches that SGD loses at."""
    pairs = {
        workers: (of[name], of[BY_WORKERS[workers]])
        for workers, name in LARS_BY_WORKERS.items()
        if name in of and BY_WORKERS[workers] in of
    }
    found = _all(*(better(lars, sgd) for lars, sgd in pairs.values()))
    because = "; ".join(f"{k} workers: LARS {a}, SGD {b}" for k, (a, b) in pairs.items())
    if SGD_BY_SCHEDULE in of:
        because += f", SGD with LARS's schedule {of[SGD_BY_SCHEDULE]} with 64"
    return found, because


# Each claim, what it needs to have been measured, and how it is decided.
CLAIMS: tuple[tuple[str, tuple[str, ...], Callable[[Outcomes], tuple[str, str]]], ...] = (
    ("large equals small within the spread", ("baseline", "gradual-warmup"), large_equals_small),
    (
        "gradual beats none beats constant",
        ("gradual-warmup", "no-warmup", "constant-warmup"),
        order_of_warmups,
    ),
    (
        "scaled beats unscaled and square root",
        ("gradual-warmup", "sqrt", "unscaled"),
        scaled_beats_others,
    ),
    ("γ = 0 helps", ("gradual-warmup", "gamma-1"), zero_gamma_helps),
    ("training curves match after warmup", ("baseline", "gradual-warmup"), curves_match),
    ("there is an elbow", ("baseline", "gradual-warmup", "workers-64"), there_is_an_elbow),
    ("LARS moves the elbow out", ("lars-64", "workers-64"), lars_moves_the_elbow),
)


def judge(outcomes: Outcomes) -> list[Verdict]:
    """Return a verdict for each claim; *not measured* where a setting of it has no run."""
    verdicts = []
    for claim, needed, decide in CLAIMS:
        if missing := [name for name in needed if name not in outcomes]:
            verdicts.append(Verdict(claim, UNKNOWN, f"no runs of {', '.join(missing)}"))
        else:
            verdicts.append(Verdict(claim, *decide(outcomes)))
    return verdicts


def _all(*found: str) -> str:
    """Return the worst of what was found of a claim's parts."""
    return max(found, key=(HOLDS, NOISE, FAILS).index)
