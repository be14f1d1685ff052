"""Shares of cores on made-up machines."""

import os
import threading

import pytest

from hvd_utils.horovod_backend import affinity
from hvd_utils.horovod_backend.affinity import (
    Core,
    Place,
    cores_of,
    format_cpulist,
    parse_cpulist,
    share,
)


def machine(sockets, nodes, cores, smt=2):
    """Cores as Linux numbers them: all first hardware threads, then all second ones."""
    total = sockets * nodes * cores
    return [
        Core(i // (nodes * cores), i // cores, tuple(i + total * t for t in range(smt)))
        for i in range(total)
    ]


def node_cpus(cores, node):
    return {cpu for core in cores if core.node == node for cpu in core.cpus}


def shares(cores, near):
    """All shares, after a look that they are disjoint, whole cores and even to one."""
    found = [cores_of(rank, len(near), cores, near) for rank in range(len(near))]
    assert sum(map(len, found)) == len(frozenset().union(*found))
    assert frozenset().union(*found) == {cpu for core in cores for cpu in core.cpus}
    counts = [sum(set(core.cpus) <= cpus for core in cores) for cpus in found]
    assert sum(counts) == len(cores)
    assert max(counts) - min(counts) <= 1
    return found


def test_dgx_two_sockets_four_gpus_on_each():
    cores = machine(sockets=2, nodes=1, cores=64)
    found = shares(cores, [node_cpus(cores, gpu // 4) for gpu in range(8)])
    assert found[0] == parse_cpulist("0-15,128-143")
    assert found[5] == parse_cpulist("80-95,208-223")


def test_gpus_are_not_numbered_as_their_nodes():
    cores = machine(sockets=2, nodes=2, cores=8)
    nodes = [1, 1, 0, 0, 3, 3, 2, 2]
    for node, cpus in zip(nodes, shares(cores, [node_cpus(cores, n) for n in nodes]), strict=True):
        assert cpus <= node_cpus(cores, node)


def test_nodes_without_a_gpu_are_used_too_by_those_on_their_socket():
    cores = machine(sockets=2, nodes=4, cores=16)
    nodes = [3, 3, 1, 1, 7, 7, 5, 5]
    found = shares(cores, [node_cpus(cores, node) for node in nodes])
    for node, cpus in zip(nodes, found, strict=True):
        assert len(cpus & node_cpus(cores, node)) == len(cpus) / 2
        assert {core.socket for core in cores if set(core.cpus) & cpus} == {node // 4}


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 7, 16])
@pytest.mark.parametrize("gpu", ["none", "some", "all on one socket"])
def test_any_number_of_processes_is_served_fairly(ranks, gpu):
    cores = machine(sockets=2, nodes=2, cores=5)
    near = [set()] * ranks
    if gpu != "none":
        near = [node_cpus(cores, r % 2) if gpu != "some" or r % 3 else set() for r in range(ranks)]
    shares(cores, near)


def test_uneven_cores_go_to_those_who_have_them_near():
    cores = machine(sockets=2, nodes=1, cores=5)
    near = [node_cpus(cores, rank // 2) for rank in range(4)]
    for cpus, close in zip(shares(cores, near), near, strict=True):
        assert cpus <= close


def test_without_gpus_nodes_are_shared_evenly():
    cores = machine(sockets=1, nodes=4, cores=4)
    for rank, cpus in enumerate(shares(cores, [set()] * 4)):
        assert cpus == node_cpus(cores, rank)


def test_a_restricted_set_is_all_that_is_shared():
    cores = machine(sockets=2, nodes=1, cores=64)[:10]  # the job got ten cores of socket 0
    near = [node_cpus(machine(2, 1, 64), gpu // 2) for gpu in range(4)]  # two GPUs are on socket 1
    shares(cores, near)


def test_one_core_is_left_to_all():
    assert [cores_of(r, 3, [Core(0, 0, (0, 1))], [set()] * 3) for r in range(3)] == [{0, 1}] * 3


def test_what_a_launcher_bound_already_is_left_alone():
    cores = machine(sockets=1, nodes=1, cores=8, smt=1)
    bound = [Place("a", frozenset({0, 1}), frozenset()), Place("a", frozenset({2, 3}), frozenset())]
    assert share(bound, 1, [core for core in cores if core.cpus[0] in (2, 3)]) == {2, 3}
    free = Place("a", frozenset(range(8)), frozenset())
    assert share([free, free._replace(host="b"), free], 2, cores) == {4, 5, 6, 7}


def test_the_machine_as_sys_tells_it(tmp_path):
    for cpu in range(8):
        topology = tmp_path / f"devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
        (topology / "physical_package_id").write_text(f"{cpu % 4 // 2}\n")
    for node, cpus in enumerate(("0-1,4-5", "2-3,6-7")):
        (tmp_path / f"devices/system/node/node{node}").mkdir(parents=True)
        (tmp_path / f"devices/system/node/node{node}/cpulist").write_text(cpus + "\n")
    gpu = tmp_path / "bus/pci/devices/0000:07:00.0"
    gpu.mkdir(parents=True)
    (gpu / "local_cpulist").write_text("2-3,6-7\n")
    assert affinity.read_cores(range(8), tmp_path) == machine(sockets=2, nodes=1, cores=2)
    assert affinity.read_cores({1, 2, 6}, tmp_path) == [Core(0, 0, (1,)), Core(1, 1, (2, 6))]
    assert affinity.read_near("0000:07:00.0", tmp_path) == {2, 3, 6, 7}
    assert affinity.read_near("0000:08:00.0", tmp_path) == affinity.read_near(None) == frozenset()
    nothing = affinity.read_cores({3, 5}, tmp_path / "none")
    assert nothing == [Core(0, 0, (3,)), Core(0, 0, (5,))]


@pytest.mark.parametrize("text", ["", "0", "0-3", "0,2-5,7", "0-15,128-143"])
def test_lists_of_cpus_are_read_and_written(text):
    assert format_cpulist(parse_cpulist(text + "\n")) == text
    assert len(parse_cpulist("0-15,128-143")) == 32


def test_pinning_takes_running_threads_along_and_can_be_undone(monkeypatch):
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("there is one core only")
    monkeypatch.setattr(affinity, "_given", None)
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        affinity.pin({min(before)})
        assert os.sched_getaffinity(thread.native_id) == os.sched_getaffinity(0) == {min(before)}
        assert affinity.allowed_cpus() == before
    finally:
        affinity.pin(before)
        done.set()
        thread.join()
    assert os.sched_getaffinity(0) == before
