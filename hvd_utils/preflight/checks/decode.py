"""Which way of decoding works on every node's GPU, by the probe of ``loading.decoding``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dali_pipeline.loading.decoding.verdict import SAFE, choose, describe
from dali_pipeline.loading.decoding.verdict import Verdict as Probed
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import name_ranks, some
from hvd_utils.config.settings import Settings
from hvd_utils.preflight.verdict import FAIL, OK, SKIP, WARN, Verdict, groups_of

SKIPPED = Verdict("decode", SKIP, "by the CPU's threads (--decode auto probes what a GPU can do)")


def is_skipped(settings: Settings) -> bool:
    """Return whether the job decodes on the CPU anyway, so that nothing is to be probed."""
    return settings.decode == "cpu" or settings.loader != "dali" or settings.device == "cpu"


def judge(
    facts: Mapping[int, Mapping[str, Sequence]], hosts: Mapping[int, str], decode: str
) -> tuple[Verdict, str]:
    """Judge what each node's first rank probed, by way; return the way that the job takes too.

    Where a way was asked for and fails, that is the CPU's.
    """
    if not any(facts.values()):
        if decode == "auto":
            return Verdict("decode", SKIP, "there is no GPU"), "cpu"
        return Verdict("decode", FAIL, "there is no GPU", "leave out --decode"), "cpu"
    found = {rank: {w: Probed(*v) for w, v in fact.items()} for rank, fact in facts.items() if fact}
    nodes = [(hosts[rank], verdicts) for rank, verdicts in found.items()]
    failed = {
        rank: "; ".join(f"{way} {v.reason}" for way, v in verdicts.items() if not v.passed)
        for rank, verdicts in found.items()
    }
    failed = {rank: reasons for rank, reasons in failed.items() if reasons}
    told = some(f"{name_ranks(ranks, hosts)}: {reasons}" for reasons, ranks in groups_of(failed))
    try:
        way = choose(decode, nodes)
    except BadInput:
        return Verdict("decode", FAIL, told, SAFE), "cpu"
    if failed:
        return Verdict("decode", WARN, f"the job takes {way}; {told}", SAFE), way
    return Verdict("decode", OK, describe(way, nodes).removeprefix("decoding: ")), way
