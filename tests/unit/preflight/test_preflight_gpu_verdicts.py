"""Judging made-up GPUs, and sums by NCCL, of 256 ranks on 32 nodes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support.made_up_ranks import HOSTS, LOCAL, everywhere, kinds

from hvd_utils.preflight.checks import gpu, horovod_build
from hvd_utils.preflight.checks.gpu_network import check_gpu_sums
from hvd_utils.preflight.checks.network_verdicts import (
    Timed,
    judge_link,
    judge_peers,
    judge_sum_link,
)


def gpus(**changes) -> list[dict]:
    base = {"name": "H100", "total": 80 * 2**30, "used": 2**28, "throttle": 1}
    return [{"index": i, "uuid": f"GPU-{i}", "bus": f"0:{i}"} | base | changes for i in range(8)]


def gpu_facts(**odd) -> dict[int, dict]:
    facts = everywhere({"gpus": [], "visible": None, "reason": ""}, **odd)
    for rank, fact in facts.items():
        if not fact["gpus"] and not fact["reason"]:
            fact["gpus"] = gpus()
        fact["gpus"] = [g | {"uuid": f"{HOSTS[rank]}-{g['uuid']}"} for g in fact["gpus"]]
    return facts


def test_one_gpu_a_rank_passes():
    verdicts = gpu.judge(gpu_facts(), HOSTS, LOCAL, "auto")
    assert set(kinds(verdicts).values()) == {"ok"}


@pytest.mark.parametrize(
    ("odd", "check", "verdict", "word"),
    [
        ({"visible": "0,0,0,0,0,0,0,0"}, "GPUs", "fail", "shared"),  # it takes its node's GPU 0
        ({"gpus": gpus(used=60 * 2**30)}, "GPU memory", "fail", "in use"),
        ({"gpus": gpus(used=8 * 2**30)}, "GPU memory", "warn", "in use"),
        ({"gpus": gpus(throttle=0x40)}, "GPU clocks", "warn", "heat (hardware)"),
        ({"gpus": gpus(name="A100")}, "GPUs", "warn", "A100"),
        ({"reason": "driver mismatch"}, "GPUs", "fail", "driver mismatch"),
        ({"visible": "0,1"}, "GPUs", "fail", "2 for 8 ranks"),
    ],
)
def test_what_is_wrong_with_a_gpu_is_named_with_its_rank(odd, check, verdict, word):
    verdicts = {v.check: v for v in gpu.judge(gpu_facts(r9=odd), HOSTS, LOCAL, "auto")}
    assert verdicts[check].verdict == verdict
    assert word in verdicts[check].seen
    assert "rank 9 (node01)" in verdicts[check].seen


def test_one_node_whose_gpus_are_not_ready_is_a_machines_fault():
    for odd, machine in (
        ({"gpus": gpus(used=60 * 2**30)}, True),
        ({"reason": "nvidia-smi hangs (20 s)"}, True),
        ({"visible": "0,1"}, False),  # as it was started
    ):
        found = gpu.judge(gpu_facts(r9=odd), HOSTS, LOCAL, "auto")
        assert [v.machine for v in found if v.verdict == "fail"] == [machine]


def test_ranks_that_see_one_gpu_each_lose_access_to_their_peers():
    """As with Slurm's --gpus-per-task=1, where control groups hide the others."""
    own = {f"r{rank}": {"visible": str(rank % 8)} for rank in range(256)}
    verdicts = {v.check: v for v in gpu.judge(gpu_facts(**own), HOSTS, LOCAL, "auto")}
    assert verdicts["GPUs"].verdict == "ok"
    assert verdicts["GPU peers"].verdict == "warn"
    alone = dict.fromkeys(LOCAL, (0, 1))
    assert "GPU peers" not in kinds(gpu.judge(gpu_facts(**own), HOSTS, alone, "auto"))


MIG = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aa)
  MIG 1g.10gb     Device  0: (UUID: MIG-cc)
  MIG 2g.20gb     Device  1: (UUID: MIG-dd)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bb)
"""


def test_parts_of_a_gpu_are_found_by_their_names():
    listed = gpu.parse(SMI)
    parts = gpu.parse_mig(MIG, listed)
    assert [part["uuid"] for part in parts] == ["MIG-cc", "MIG-dd"]
    assert parts[1]["name"] == "NVIDIA H100 80GB HBM3 MIG 2g.20gb"
    shown = gpu.visible_gpus(listed + parts, "MIG-dd,MIG-cc")
    assert [part["uuid"] for part in shown] == ["MIG-dd", "MIG-cc"]


def test_without_gpus_it_depends_on_what_was_asked_for():
    facts = everywhere({"gpus": [], "visible": None, "reason": "no nvidia-smi"})
    assert kinds(gpu.judge(facts, HOSTS, LOCAL, "auto")) == {"GPUs": "skip"}
    assert kinds(gpu.judge(facts, HOSTS, LOCAL, "cpu")) == {"GPUs": "skip"}
    assert kinds(gpu.judge(facts, HOSTS, LOCAL, "cuda")) == {"GPUs": "fail"}


SMI = """0, GPU-aa, 00000000:19:00.0, NVIDIA H100 80GB HBM3, 81559, 4, 0x0000000000000001
1, GPU-bb, 00000000:3B:00.0, NVIDIA H100 80GB HBM3, [N/A], [N/A], [N/A]
"""


def test_nvidia_smi_is_read_with_what_it_does_not_know():
    first, second = gpu.parse(SMI)
    assert first["uuid"] == "GPU-aa"
    assert first["total"] == 81559 * 2**20
    assert first["throttle"] == 1
    assert (second["total"], second["used"], second["throttle"]) == (None, None, None)
    assert gpu.parse("NVIDIA-SMI has failed\n") == []


def test_visible_gpus_are_cudas():
    listed = gpu.parse(SMI)
    assert gpu.visible_gpus(listed, None) == listed
    assert gpu.visible_gpus(listed, "1,0") == listed[::-1]
    assert gpu.visible_gpus(listed, "GPU-bb") == listed[1:]
    assert gpu.visible_gpus(listed, "0,7,1") == listed[:1]  # CUDA stops there
    assert gpu.visible_gpus(listed, "") == []


BUILT = {"mpi": True, "gloo": True, "nccl": True, "gpus": 8}


@pytest.mark.parametrize(
    ("odd", "device", "verdict"),
    [
        ({}, "auto", "ok"),
        ({"nccl": False}, "auto", "fail"),
        ({"mpi": False, "gloo": False}, "cpu", "fail"),
        ({"gloo": False}, "cpu", "fail"),  # another build than the others'
    ],
)
def test_horovod_is_built_for_the_job(odd, device, verdict):
    judged = horovod_build.judge(everywhere(BUILT, r8=odd), HOSTS, device)
    assert judged.verdict == verdict
    assert verdict == "ok" or "rank 8 (node01)" in judged.seen


def test_without_gpus_nccl_is_not_needed():
    facts = everywhere({"mpi": True, "gloo": True, "nccl": False, "gpus": 0})
    assert horovod_build.judge(facts, HOSTS, "auto").verdict == "ok"
    assert horovod_build.judge(facts, HOSTS, "cuda").verdict == "fail"


def test_a_gpu_that_pytorch_does_not_see_is_a_failure_unless_it_is_not_wanted():
    facts = everywhere(BUILT, r8={"gpus": 0, "unseen": "(driver 535.104.05) that PyTorch 2 (why)"})
    judged = horovod_build.judge(facts, HOSTS, "auto")
    assert judged.verdict == "fail"
    assert judged.seen == "rank 8 (node01): an NVIDIA GPU (driver 535.104.05) that PyTorch 2 (why)"
    assert "--device cpu" in judged.remedy
    assert horovod_build.judge(facts, HOSTS, "cpu").verdict == "ok"


def test_with_gpus_a_slow_mpi_does_not_hold_up_a_cluster():
    """The wheel's Open MPI has TCP alone; gradients travel by NCCL over InfiniBand."""
    verdict = judge_link(9.4, 400, "what its devices say", 32, gpus=True)
    assert (verdict.verdict, "carries no gradients" in verdict.seen) == ("warn", True)


@pytest.mark.parametrize(
    ("milliseconds", "expected", "verdict"),
    [
        (5, 400, "ok"),  # 319 Gbit/s, one adapter of 400
        (0.6, 400, "ok"),  # 2.7 Tbit/s: eight of them
        (17, 100, "ok"),  # 94 Gbit/s
        (170, 400, "fail"),  # over a 10 Gbit/s Ethernet: InfiniBand is not used
        (40, 100, "warn"),  # 40 Gbit/s
        (60, 10, "ok"),  # more than one link
        (170, None, "ok"),
    ],
)
def test_nccl_between_nodes_is_held_against_one_link(milliseconds, expected, verdict):
    summed = Timed(100_000_000, 256, milliseconds / 1000)
    assert judge_sum_link(summed, expected, "what its devices say").verdict == verdict


@pytest.mark.parametrize(
    ("milliseconds", "verdict"),
    [(0.6, "ok"), (9, "ok"), (40, "warn"), (400, "warn")],  # NVLink, PCIe 4, memory, TCP
)
def test_nccl_in_a_node_shows_whether_gpus_reach_each_other(milliseconds, verdict):
    assert judge_peers(Timed(100_000_000, 8, milliseconds / 1000)).verdict == verdict


class Lead:
    """A coordinator of 2 nodes of 2 ranks, in whose sums each rank takes its number of seconds."""

    hosts = ("node1", "node1", "node2", "node2")
    alive = (0, 1, 2, 3)

    def __init__(self):
        self.summed = []

    def ask(self, kind, limit, what, ranks, *, job, **given):
        if job == "sum":
            self.summed.append((given["groups"], given["size"]))
        facts = {rank: "meeting" if job == "meet" else 0.01 * (1 + rank) for rank in ranks}
        return SimpleNamespace(facts=facts, trouble=lambda what, hosts: [])


def test_nodes_of_several_gpus_sum_100_mb_in_each_node_and_then_among_all():
    lead, verdicts = Lead(), []
    between = check_gpu_sums(
        lead, lambda: [[0, 1], [2, 3]], lambda *more: verdicts.extend(more), 60, (200, "ibstat")
    )
    assert lead.summed == [([[0, 1], [2, 3]], 100_000_000), ([[0, 1, 2, 3]], 100_000_000)]
    assert [v.check for v in verdicts] == ["NCCL, in a node", "NCCL between nodes"]
    assert between == Timed(100_000_000, 4, 0.04)  # the slowest rank's
    assert "2 GPUs" in verdicts[0].seen
    alone = check_gpu_sums(lead, lambda: [[0, 1]], lambda *more: None, 60, (None, ""))
    assert alone == Timed(100_000_000, 2, 0.02)
