"""Was Horovod built with what the job needs?"""

from __future__ import annotations

from collections.abc import Mapping

from hvd_utils.cli.ranks import name_ranks
from hvd_utils.preflight.verdict import FAIL, OK, Verdict, odd_ones


def judge(facts: Mapping[int, Mapping], hosts: Mapping[int, str], device: str) -> Verdict:
    """Judge what each rank's child imported: ``mpi``, ``gloo``, ``nccl`` built, ``gpus`` seen.

    ``unused`` is what a node has of a GPU that PyTorch does not see, if anything.
    """
    again = "build it anew: tools/install_horovod.py --force, where MPI and the CUDA toolkit are"
    neither = [rank for rank, fact in facts.items() if not (fact["mpi"] or fact["gloo"])]
    if neither:
        seen = f"built with neither MPI nor Gloo on {name_ranks(neither, hosts)}"
        return Verdict("Horovod", FAIL, seen, again)
    unused = [rank for rank, fact in facts.items() if fact.get("unused")]
    if unused and device != "cpu":
        has = facts[unused[0]]["unused"]
        seen = f"PyTorch does not see the GPU ({has}) of {name_ranks(unused, hosts)}"
        remedy = (
            "update the driver, take a PyTorch built for an older CUDA, or set --device cpu to "
            "train without it"
        )
        return Verdict("Horovod", FAIL, seen, remedy)
    gpus = device != "cpu" and any(fact["gpus"] for fact in facts.values())
    without = [rank for rank, fact in facts.items() if not fact["nccl"]]
    if (gpus or device == "cuda") and without:
        seen = f"built without NCCL on {name_ranks(without, hosts)}, which GPUs need"
        return Verdict("Horovod", FAIL, seen, again)
    built = {rank: _parts(fact) for rank, fact in facts.items()}
    odd = odd_ones("built with", built, hosts)
    if odd:
        return Verdict("Horovod", FAIL, odd, "use the same environment on every host")
    return Verdict("Horovod", OK, f"built with {built[min(built)]}; torch and DALI import too")


def _parts(fact: Mapping) -> str:
    names = (("mpi", "MPI"), ("gloo", "Gloo"), ("nccl", "NCCL"))
    return ", ".join(name for key, name in names if fact[key])
