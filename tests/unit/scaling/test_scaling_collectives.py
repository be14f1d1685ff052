"""The time of an allreduce by each algorithm: bytes, messages, and what bandwidth does to it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hvd_utils.scaling.collectives import ALGORITHMS, ring_bytes
from hvd_utils.scaling.network import PRESETS, preset

SIZE = 102e6  # bytes
NETWORK = preset("ethernet-50")
NO_LATENCY = replace(NETWORK, latency=0.0, gpu_latency=0.0)
LATENCY_ALONE = replace(NETWORK, gbit=1e12, gpu_bandwidth=1e20)
ONE_A_NODE = replace(NETWORK, gpus_per_node=1)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_gpu_has_no_communication(algorithm):
    assert ALGORITHMS[algorithm](SIZE, 1, NETWORK) == 0


@pytest.mark.parametrize("algorithm", ["ring", "halving-doubling", "hierarchical"])
@pytest.mark.parametrize("gpus", [2, 8, 32, 256])
def test_every_rank_sends_the_papers_bytes(algorithm, gpus):
    """2(p − 1)/p·b where each GPU has a link of its own (section 4)."""
    network = replace(ONE_A_NODE, latency=0.0, gpu_latency=0.0)
    expected = 2 * (gpus - 1) / gpus * SIZE / network.node_bandwidth
    assert ALGORITHMS[algorithm](SIZE, gpus, network) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("algorithm", "messages"),
    [("ring", 2 * 31), ("tree", 2 * 5), ("halving-doubling", 2 * 5), ("hierarchical", 2 * 5)],
)
def test_messages_one_after_another_of_32_servers(algorithm, messages):
    network = replace(LATENCY_ALONE, gpus_per_node=1)
    seconds = ALGORITHMS[algorithm](SIZE, 32, network)
    assert seconds == pytest.approx(messages * network.latency, rel=1e-6)


def test_between_nodes_the_hierarchical_one_sends_what_one_server_a_node_would():
    inside = replace(NO_LATENCY, gpu_bandwidth=1e20)
    seconds = ALGORITHMS["hierarchical"](SIZE, 256, inside)
    assert seconds == pytest.approx(ring_bytes(SIZE, 32) / inside.node_bandwidth)


def test_flat_halving_and_doubling_shares_the_links_of_a_node_among_its_gpus():
    inside = replace(NO_LATENCY, gpu_bandwidth=1e20)
    flat = ALGORITHMS["halving-doubling"](SIZE, 256, inside)
    assert flat == pytest.approx(8 * ALGORITHMS["hierarchical"](SIZE, 256, inside))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("gpus", [2, 8, 12, 100, 4096])
def test_more_bandwidth_is_never_slower_and_more_bytes_never_faster(algorithm, gpus):
    seconds = ALGORITHMS[algorithm]
    times = [seconds(SIZE, gpus, NETWORK.with_node_gbit(gbit)) for gbit in (1, 10, 25, 100, 1e4)]
    assert times == sorted(times, reverse=True)
    times = [seconds(size, gpus, NETWORK) for size in (1e3, 1e6, 1e9)]
    assert times == sorted(times)


def test_presets_stand_from_the_least_line_rate_of_a_node_to_the_most():
    rates = [network.links * network.gbit for network in PRESETS.values()]
    assert rates == sorted(rates)
    assert all(network.source and 0 < network.goodput <= 1 for network in PRESETS.values())
