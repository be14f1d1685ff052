"""Answer which network gives an efficiency, and where more GPUs stop paying."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hvd_utils.scaling.collectives import ALGORITHMS
from hvd_utils.scaling.gradients import Gradient
from hvd_utils.scaling.network import PRESETS
from hvd_utils.scaling.predict import Cluster, Prediction, Step, predict

LEAST, MOST = 0.01, 1e6  # Gbit/s of a node, between which is looked for
MOST_GPUS = 65_536


def reaches(
    step: Step, gradients: Sequence[Gradient], cluster: Cluster, gpus: int, efficiency: float
) -> bool:
    """Whether so many GPUs have this efficiency, against one GPU alone."""
    alone = predict(step, gradients, replace(cluster, input_limit=None, max_minibatch=None), 1)
    return predict(step, gradients, cluster, gpus).efficiency(alone) >= efficiency


def node_gbit_for(
    step: Step, gradients: Sequence[Gradient], cluster: Cluster, gpus: int, efficiency: float
) -> float | None:
    """Return the usable Gbit/s of a node that give this efficiency; None where no bandwidth does.

    To a part in a thousand; latencies and the inside of nodes stay the cluster's.
    """

    def enough(gbit: float) -> bool:
        network = cluster.network.with_node_gbit(gbit)
        return reaches(step, gradients, replace(cluster, network=network), gpus, efficiency)

    if not enough(MOST):
        return None
    low, high = LEAST, MOST
    while high / low > 1.001:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def cheapest_preset(
    step: Step, gradients: Sequence[Gradient], cluster: Cluster, gpus: int, efficiency: float
) -> str | None:
    """Return the first preset that gives this efficiency, from the least bandwidth to the most."""
    for name, network in PRESETS.items():
        if reaches(step, gradients, replace(cluster, network=network), gpus, efficiency):
            return name
    return None


def network_for(
    step: Step, gradients: Sequence[Gradient], cluster: Cluster, gpus: int, efficiency: float
) -> dict[str, tuple[float | None, str | None]]:
    """Return by algorithm the usable Gbit/s of a node, and the cheapest preset, that suffice."""
    found = {}
    for name in ALGORITHMS:
        one = replace(cluster, algorithm=name)
        question = (step, gradients, one, gpus, efficiency)
        found[name] = (node_gbit_for(*question), cheapest_preset(*question))
    return found


@dataclass(frozen=True)
class Stop:
    """Where more GPUs stop paying: at ``last``; ``doubled`` is what twice as many would give."""

    last: Prediction
    doubled: Prediction
    efficiency: float  # of the doubled, against one GPU

    @property
    def gain(self) -> float:
        """How many times faster twice as many would be."""
        return self.doubled.images_per_second / self.last.images_per_second


def stops_paying(
    step: Step, gradients: Sequence[Gradient], cluster: Cluster, gain: float, efficiency: float
) -> Stop | None:
    """Return the first number of GPUs whose doubling gains too little; None below MOST_GPUS.

    That is, less than ``gain`` times the speed, or an efficiency below ``efficiency``. The numbers
    are doubled from one node's on, while there are images for twice as many.
    """
    alone = predict(step, gradients, replace(cluster, input_limit=None, max_minibatch=None), 1)
    most = min(MOST_GPUS, cluster.max_minibatch or MOST_GPUS)
    gpus = cluster.network.gpus_per_node
    last = predict(step, gradients, cluster, gpus)
    while 2 * gpus <= most:
        gpus *= 2
        doubled = predict(step, gradients, cluster, gpus)
        stop = Stop(last, doubled, doubled.efficiency(alone))
        if stop.gain < gain or stop.efficiency < efficiency:
            return stop
        last = doubled
    return None
