"""Sums on the ranks' devices, in real children: on CPUs by Gloo, all else as with GPUs by NCCL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from hvd_utils.config.settings import Settings
from hvd_utils.preflight.checks import gpu_network
from hvd_utils.preflight.checks.device_sums import node_addresses
from hvd_utils.preflight.child import Child, ChildFailed
from hvd_utils.preflight.coordinator import Answers

SETTINGS = Settings(recipe="test", device="cpu").model_dump(mode="json")


class Lead:
    """What a coordinator is asked for, of two ranks whose children are here."""

    def __init__(self, hosts):
        self.hosts = hosts
        self.children = {rank: Child() for rank in hosts}

    @property
    def alive(self):
        return list(self.hosts)

    def ask(self, task, limit, what, ranks, *, job, **arguments):
        assert task == "child"
        answers = Answers()

        def one(rank):
            place = {"rank": rank, "local_rank": rank, "local_size": 2}
            try:
                answers.facts[rank] = self.children[rank].ask(
                    job, limit, settings=SETTINGS, place=place, **arguments
                )
            except ChildFailed as error:
                answers.errors[rank] = str(error)

        with ThreadPoolExecutor() as pool:
            list(pool.map(one, ranks))
        return answers


@pytest.fixture(scope="module")
def children():
    lead = Lead({0: "a", 1: "a"})
    yield lead
    for child in lead.children.values():
        child.close()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(gpu_network, "BYTES", 2**20)
    monkeypatch.setattr(gpu_network, "REPETITIONS", 3)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")


@pytest.mark.parametrize("hosts", [["a", "a"], ["a", "b"]], ids=["one node", "two nodes"])
def test_every_rank_sums_on_its_own_device(children, hosts):
    children.hosts = dict(enumerate(hosts))
    if len(set(hosts)) > 1 and not node_addresses():
        pytest.skip("this machine has no address but its own loopback")
    nodes = [[0, 1]] if hosts == ["a", "a"] else [[0], [1]]
    verdicts = []

    def add(*more):
        verdicts.extend(more)

    expected = (1e-9, "--expected-gbit")
    summed = gpu_network.check_gpu_sums(children, lambda: nodes, add, 60, expected)
    name = "NCCL, in a node" if len(nodes) == 1 else "NCCL between nodes"
    assert [verdict.check for verdict in verdicts] == [name]
    assert verdicts[0].verdict != "fail", verdicts
    assert (summed.size, summed.ranks) == (2**20, 2)
    assert summed.seconds > 0


def test_a_rank_that_is_left_alone_sums_nothing(children):
    children.hosts = {0: "a"}  # rank 1 does not answer
    verdicts = []
    summed = gpu_network.check_gpu_sums(
        children, lambda: [[0]], lambda *more: verdicts.extend(more), 60, (1.0, "--expected-gbit")
    )
    assert (summed, verdicts) == (None, [])


def test_a_rank_that_cannot_join_is_named(children):
    children.hosts = {0: "a", 1: "b"}
    met = children.ask("child", 30, "sums", [0], job="meet", shared=True)
    meeting = {**met.facts[0], "addresses": ["127.0.0.1"], "port": 9}
    answers = children.ask(
        "child", 30, "sums", [1], job="sum", groups=[[0, 1]], meetings=[meeting], repetitions=1,
        size=2**20,
    )  # fmt: skip
    (trouble,) = answers.trouble("NCCL between nodes", children.hosts)
    assert trouble.verdict == "fail"
    assert "rank 1 (b)" in trouble.seen
    assert "cannot be reached at 127.0.0.1" in trouble.seen
