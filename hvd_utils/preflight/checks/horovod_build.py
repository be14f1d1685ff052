"""Was Horovod built with what the job needs?"""

from __future__ import annotations

from collections.abc import Mapping

from hvd_utils.cli.ranks import name_ranks
from hvd_utils.horovod_backend.node import UNSEEN_REMEDY
from hvd_utils.preflight.verdict import FAIL, OK, Verdict, odd_ones


def judge(facts: Mapping[int, Mapping], hosts: Mapping[int, str], device: str) -> Verdict:
    """Judge what each rank's child imported: ``mpi``, ``gloo``, ``nccl`` built, ``gpus`` seen.

    ``unseen`` is a GPU that PyTorch does not see and why, if there is one.
    """
    again = "build it anew where MPI is: CUDA=13 make setup, or CUDA=12 for drivers before 580"
    neither = [rank for rank, fact in facts.items() if not (fact["mpi"] or fact["gloo"])]
    if neither:
        seen = f"built with neither MPI nor Gloo on {name_ranks(neither, hosts)}"
        return Verdict("Horovod", FAIL, seen, again)
    unseen = [rank for rank, fact in facts.items() if fact.get("unseen")]
    if unseen and device != "cpu":
        seen = f"{name_ranks(unseen, hosts)}: an NVIDIA GPU {facts[unseen[0]]['unseen']}"
        return Verdict("Horovod", FAIL, seen, UNSEEN_REMEDY, machine=len(unseen) < len(facts))
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
