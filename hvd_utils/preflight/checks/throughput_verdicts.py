"""Judge the rates of training and loading, and estimate the time of an epoch and of the run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from hvd_utils.cli.ranks import name_hosts, name_ranks
from hvd_utils.config.settings import Settings
from hvd_utils.paper.schedule import first_step
from hvd_utils.preflight.checks.network_verdicts import Timed
from hvd_utils.preflight.verdict import FAIL, OK, SKIP, WARN, Verdict

SLOW = 0.7  # of the others' median
STARVED = 0.5  # of what the ranks of a node train


def judge_training(facts: Mapping[int, Mapping], hosts: Mapping[int, str], model: str) -> Verdict:
    """Judge images/s of each rank: all wait for the slowest."""
    rates = {rank: fact["rate"] for rank, fact in facts.items()}
    middle, low = statistics.median(rates.values()), min(rates, key=rates.get)
    devices = {fact["device"] for fact in facts.values()}
    if len(devices) > 1:
        odd = [rank for rank, fact in facts.items() if fact["device"] == "cpu"]
        seen = f"some ranks train on a GPU, but not {name_ranks(odd, hosts)}"
        remedy = "mend their GPUs, or set --device cpu for all"
        return Verdict("training alone", FAIL, seen, remedy, machine=True)
    what = f"{model}, {devices.pop()}, batches of {facts[low]['batch']}"
    seen = f"{middle:,.0f} images/s a rank ({what})"
    slow = [rank for rank, rate in rates.items() if rate < SLOW * middle]
    if slow:
        seen += f"; slower: {name_ranks(slow, hosts)}, down to {rates[low]:,.0f}"
        remedy = "all wait for the slowest: look at its clocks and what else runs there"
        return Verdict("training alone", WARN, seen, remedy)
    if len(rates) > 1:
        seen += f"; slowest {name_ranks([low], hosts)}: {rates[low]:,.0f}"
    return Verdict("training alone", OK, seen)


def judge_loading(
    facts: Mapping[int, Mapping],
    hosts: Mapping[int, str],
    eaten: Mapping[int, float],
    worst: str = FAIL,
) -> Verdict:
    """Judge each node's images/s against what its ranks train; ``eaten`` is by rank, if known.

    Facts of ranks with a GPU name the way of decoding. ``worst`` is the verdict on a starved node.
    """
    loaded, wanted, first = {}, {}, {}
    for rank in sorted(facts):
        host = hosts[rank]
        first.setdefault(host, rank)
        loaded[host] = loaded.get(host, 0.0) + facts[rank]["rate"]
        wanted[host] = wanted.get(host, 0.0) + eaten.get(rank, 0.0)
    low = min(loaded, key=lambda host: loaded[host] / (wanted[host] or 1))
    way = facts[first[low]].get("decode")
    seen = f"{loaded[low]:,.0f} images/s of {low}" + (f" by --decode {way}" if way else "")
    if len(loaded) > 1:
        seen += ", the least against its need"
    if not wanted[low]:
        return Verdict("input alone", OK, seen)
    seen += f"; its ranks train {wanted[low]:,.0f}"
    share = loaded[low] / wanted[low]
    if share >= 1:
        return Verdict("input alone", OK, seen)
    short = [first[host] for host in loaded if loaded[host] < wanted[host]]
    if len(short) > 1:
        seen += f"; short are {name_hosts(short, hosts)}"
    other = "--decode auto, " if way == "cpu" else ""
    remedy = (
        f"more cores a rank, {other}data on local disks, packed (dali_pipeline.prepare --pack) or "
        "with smaller images (--max-side)"
    )
    verdict = WARN if share >= STARVED else worst
    return Verdict("input alone", verdict, seen, remedy, machine=True)


def reduce_seconds(sums: Sequence[Timed], size: float) -> float | None:
    """Return the time to sum ``size`` bytes, between the two measured sizes around it."""
    if not sums:
        return None
    above = next((one for one in sums if one.size >= size), sums[-1])
    below = next((one for one in reversed(sums) if one.size <= size), above)
    if below is above or above.size == below.size:
        return above.seconds * max(1.0, size / above.size)
    share = (size - below.size) / (above.size - below.size)
    return below.seconds + share * (above.seconds - below.seconds)


def estimate(
    settings: Settings,
    ranks: int,
    images: int | None,
    training: float | None,
    loading: float | None,
    gradients: float | None,
) -> tuple[Verdict, dict[str, object]]:
    """Estimate epoch and run, and return the figures in seconds.

    ``training`` and ``loading`` are the slowest rank's images/s, ``gradients`` the seconds to sum
    them over all ranks (0 for one). The range is from all overlapping to nothing.
    """
    if not (images and training):
        missing = "the data is not known" if not images else "no rate of training"
        return Verdict("estimate", SKIP, missing), {}
    workers = settings.workers or ranks
    minibatch = workers * settings.batch_per_worker
    if minibatch > images:
        seen = f"a minibatch of kn = {minibatch:,} is more than the {images:,} training images"
        return Verdict("estimate", WARN, seen, "lower --workers or --batch-per-worker"), {}
    largest_share = -(-workers // ranks) * settings.batch_per_worker
    parts = [largest_share / training]
    parts += [largest_share / loading] if loading else []
    parts += [gradients] if gradients else []
    steps = first_step(settings.epochs, images, minibatch)
    low, high = max(parts), sum(parts)
    epoch = [low * steps / settings.epochs, high * steps / settings.epochs]
    total = [low * steps, high * steps]
    figures = {
        "steps": steps,
        "step_seconds": [low, high],
        "epoch_seconds": epoch,
        "total_seconds": total,
    }
    unknown = [
        text for value, text in ((loading, "input"), (gradients, "allreduce")) if value is None
    ]
    left_out = f"{', '.join(unknown)} left out, " if unknown else ""
    seen = (
        f"epoch {_range(epoch)}, {settings.epochs} epochs "
        f"{_range(total)} ({steps:,} steps at kn = {minibatch:,}; computing, "
        f"input and sums from all at once to one by one; {left_out}validation not counted)"
    )
    return Verdict("estimate", OK, seen), figures


def _range(seconds: Sequence[float]) -> str:
    low, high = (_duration(value) for value in seconds)
    return low if low == high else f"{low} to {high}"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
