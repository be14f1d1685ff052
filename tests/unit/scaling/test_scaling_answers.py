"""The planner's answers turn its predictions round."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hvd_utils.scaling.answers import network_for, node_gbit_for, reaches, stops_paying
from hvd_utils.scaling.collectives import ALGORITHMS
from hvd_utils.scaling.gradients import gradients_of
from hvd_utils.scaling.network import PRESETS
from hvd_utils.scaling.predict import Cluster, Step, predict

STEP = Step(0.05, 32)
CLUSTER = Cluster(PRESETS["ethernet-50"], spread=0.005, between_nodes=0.01)
GRADIENTS = gradients_of("resnet50")


@pytest.mark.parametrize("algorithm", ["tree", "hierarchical", "halving-doubling"])
@pytest.mark.parametrize("efficiency", [0.5, 0.9])
def test_the_bandwidth_found_gives_the_efficiency_and_less_does_not(algorithm, efficiency):
    cluster = replace(CLUSTER, algorithm=algorithm)
    gbit = node_gbit_for(STEP, GRADIENTS, cluster, 64, efficiency)
    network = cluster.network.with_node_gbit(gbit)
    alone = predict(STEP, GRADIENTS, cluster, 1)
    row = predict(STEP, GRADIENTS, replace(cluster, network=network), 64)
    assert row.efficiency(alone) == pytest.approx(efficiency, abs=0.02)
    assert row.efficiency(alone) >= efficiency
    less = replace(cluster, network=network.with_node_gbit(gbit / 1.1))
    assert not reaches(STEP, GRADIENTS, less, 64, efficiency)


def test_the_preset_named_is_the_first_that_is_enough():
    found = network_for(STEP, GRADIENTS, CLUSTER, 64, 0.9)
    assert set(found) == set(ALGORITHMS)
    gbit, name = found["hierarchical"]
    assert PRESETS[name].node_gbit >= 0.8 * gbit  # latencies differ
    for preset, network in PRESETS.items():
        enough = reaches(STEP, GRADIENTS, replace(CLUSTER, network=network), 64, 0.9)
        assert enough == (preset == name)
        if enough:
            break


def test_no_bandwidth_mends_what_stragglers_take():
    uneven = replace(CLUSTER, spread=0.2)
    assert node_gbit_for(STEP, GRADIENTS, uneven, 512, 0.9) is None
    assert network_for(STEP, GRADIENTS, uneven, 512, 0.9)["tree"] == (None, None)


def test_it_stops_paying_where_twice_the_gpus_gain_less_than_asked():
    limited = replace(CLUSTER, max_minibatch=8192, network=PRESETS["ndr-8x"])
    stop = stops_paying(STEP, GRADIENTS, limited, 1.2, 0.01)
    assert stop.doubled.gpus == 2 * stop.last.gpus
    assert stop.gain < 1.2
    before = predict(STEP, GRADIENTS, limited, stop.last.gpus // 2)
    assert stop.last.images_per_second >= 1.2 * before.images_per_second
    # A fixed part of the step makes it earlier; asking for more does too.
    fixed = replace(STEP, fixed_seconds=0.03)
    assert stops_paying(fixed, GRADIENTS, limited, 1.2, 0.01).last.gpus < stop.last.gpus
    assert stops_paying(STEP, GRADIENTS, limited, 1.9, 0.01).last.gpus < stop.last.gpus


def test_it_stops_paying_where_the_efficiency_falls_below_the_least():
    slow = replace(CLUSTER, network=PRESETS["ethernet-10"])
    stop = stops_paying(STEP, GRADIENTS, slow, 1.0, 0.5)
    assert stop.efficiency < 0.5
    fast = replace(CLUSTER, network=PRESETS["ndr-8x"], spread=0.0)
    assert stops_paying(STEP, GRADIENTS, fast, 1.2, 0.5) is None
