"""From one worker's step to any number of GPUs: what must hold of every prediction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hvd_utils.scaling.collectives import ALGORITHMS
from hvd_utils.scaling.gradients import gradients_of, trace
from hvd_utils.scaling.network import PRESETS
from hvd_utils.scaling.overlap import Horovod
from hvd_utils.scaling.predict import Cluster, Step, of_one_gpu, predict
from hvd_utils.scaling.stragglers import expected_maximum, slowdown, spread_of

STEP = Step(0.2, 32)
CLUSTER = Cluster(PRESETS["ethernet-50"])
EVEN = replace(CLUSTER, spread=0.0, between_nodes=0.0)
GRADIENTS = gradients_of("resnet50")


def test_the_stored_gradients_are_the_models():
    """If not: python -m hvd_utils.scaling.gradients resnet50."""
    assert gradients_of("resnet50") == trace("resnet50")
    assert sum(gradient.elements for gradient in GRADIENTS) == 25_557_032
    assert GRADIENTS[0].name == "fc.bias"
    assert GRADIENTS[-1].name == "conv1.weight"
    ready = [gradient.ready for gradient in GRADIENTS]
    assert ready == sorted(ready)
    assert ready[-1] == 1


def test_one_gpu_takes_its_own_time():
    alone = predict(STEP, GRADIENTS, CLUSTER, 1)
    assert alone.seconds == alone.compute == STEP.seconds
    assert alone.images_per_second == pytest.approx(160)
    assert alone.hours(90, 1600) == pytest.approx(90 * 10 / 3600)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("network", PRESETS)
def test_efficiency_is_at_most_1_and_no_more_is_hidden_than_backprop(network, algorithm):
    cluster = replace(CLUSTER, network=PRESETS[network], algorithm=algorithm)
    alone = predict(STEP, GRADIENTS, cluster, 1)
    for gpus in (2, 8, 12, 352, 4096):
        row = predict(STEP, GRADIENTS, cluster, gpus)
        assert 0 < row.efficiency(alone) <= 1
        assert row.hidden <= STEP.backward_share * (row.compute + row.stragglers + row.nodes) + 1e-9


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_more_bandwidth_is_not_slower_but_for_where_buffers_fall(algorithm):
    """By less than a cycle and the latency of an allreduce; not at all without overlap."""
    for horovod in (Horovod(), Horovod(overlap=False)):
        fastest = float("inf")
        for gbit in (1, 3, 10, 20, 25, 30, 50, 100, 400, 1000):
            network = CLUSTER.network.with_node_gbit(gbit)
            cluster = replace(CLUSTER, network=network, algorithm=algorithm, horovod=horovod)
            row = predict(STEP, GRADIENTS, cluster, 256)
            latency = ALGORITHMS[algorithm](0, 256, network)
            slack = 1e-3 + latency if horovod.overlap else 0
            assert row.seconds <= fastest + slack
            fastest = min(fastest, row.seconds)


def test_stragglers_grow_with_ranks_as_draws_do():
    maxima = [expected_maximum(ranks) for ranks in (1, 2, 8, 256, 4096, 65536)]
    assert maxima == sorted(maxima)
    assert maxima[1] == pytest.approx(np.pi**-0.5, abs=1e-4)  # known in closed form
    draws = np.random.default_rng(1).standard_normal((2000, 256))
    assert maxima[2] == pytest.approx(draws[:, :8].max(axis=1).mean(), abs=0.05)
    assert maxima[3] == pytest.approx(draws.max(axis=1).mean(), abs=0.05)
    assert slowdown(1, 0.5) == 1
    assert slowdown(256, 0.0) == 1
    row = predict(STEP, GRADIENTS, CLUSTER, 256)
    assert row.stragglers == pytest.approx(0.2 * CLUSTER.spread * maxima[3])


def test_a_step_over_several_nodes_takes_longer_by_what_was_fitted():
    """And no longer on more of them; within a node there is nothing of it."""
    rows = [predict(STEP, GRADIENTS, CLUSTER, gpus) for gpus in (1, 8, 9, 352)]
    assert [row.nodes for row in rows] == [0, 0, 0.1 * 0.2, 0.1 * 0.2]
    assert CLUSTER.between_nodes == 0.1


def test_a_measured_spread_is_told_from_median_and_slowest_rank():
    spread = spread_of(0.2, 0.2 * slowdown(64, 0.03), 64)
    assert spread == pytest.approx(0.03)
    assert spread_of(0.2, 0.2, 1) is None


def test_a_nodes_input_bounds_the_step():
    limited = replace(EVEN, input_limit=800.0)  # of its 8 GPUs, which make 1,280 alone
    row = predict(STEP, GRADIENTS, limited, 64)
    assert row.images_per_second == pytest.approx(8 * 800)
    assert predict(STEP, GRADIENTS, limited, 2).input == 0  # that node's two make 320
    slow = replace(EVEN, input_limit=160.0)
    assert predict(STEP, GRADIENTS, slow, 64).bound == "input"


def test_n_shrinks_where_the_minibatch_may_not_grow():
    limited = replace(EVEN, max_minibatch=8192)
    assert [predict(STEP, GRADIENTS, limited, p).images for p in (8, 256, 512, 4096)] == [
        32,
        32,
        16,
        2,
    ]
    fixed = replace(STEP, fixed_seconds=0.08)
    assert predict(fixed, GRADIENTS, limited, 512).compute == pytest.approx(0.08 + 0.12 / 2)


def test_the_step_of_one_gpu_gives_back_what_was_measured_on_several():
    measured = replace(STEP, gpus=64)
    one = of_one_gpu(measured, GRADIENTS, CLUSTER)
    assert one.seconds < measured.seconds
    # But for a cycle, where the buffers fall otherwise.
    assert predict(one, GRADIENTS, CLUSTER, 64).seconds == pytest.approx(0.2, abs=1e-3)
    assert of_one_gpu(STEP, GRADIENTS, CLUSTER) == STEP


def test_fewer_bytes_and_larger_models_go_the_right_way():
    slow = replace(EVEN, network=PRESETS["ethernet-10"])
    full = predict(STEP, GRADIENTS, slow, 64)
    halved = predict(STEP, GRADIENTS, replace(slow, element_bytes=2), 64)
    assert halved.network < full.network
    apart = predict(STEP, GRADIENTS, replace(slow, horovod=Horovod(overlap=False)), 64)
    assert full.network < apart.network
