"""Predict the step of any number of GPUs from one worker's step and a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hvd_utils.scaling.calibration import BETWEEN_NODES
from hvd_utils.scaling.collectives import ALGORITHMS, steps
from hvd_utils.scaling.gradients import Gradient
from hvd_utils.scaling.network import Network
from hvd_utils.scaling.overlap import Horovod, simulate
from hvd_utils.scaling.stragglers import SPREAD, slowdown

IMAGENET = 1_281_167  # training images
BACKWARD_SHARE = 2 / 3  # backprop makes twice the multiplications of the forward pass
PARTS = ("compute", "stragglers", "nodes", "network", "input")


@dataclass(frozen=True)
class Step:
    """A step as it was measured."""

    seconds: float
    images: int  # of one GPU
    backward_share: float = BACKWARD_SHARE  # of the seconds, in which gradients become ready
    fixed_seconds: float = 0.0  # of the seconds, what fewer images would not save
    gpus: int = 1  # that it was measured on
    model: str = "resnet50"
    spread: float | None = None  # of the ranks; None: not measured
    source: str = "typed in"

    def with_images(self, images: int) -> Step:
        """Return the step of another number of images a GPU, the fixed part staying."""
        each = (self.seconds - self.fixed_seconds) / self.images
        return replace(self, seconds=self.fixed_seconds + each * images, images=images)

    def scaled(self, factor: float) -> Step:
        """Return the step of a GPU that takes ``factor`` times as long for everything."""
        return replace(
            self, seconds=self.seconds * factor, fixed_seconds=self.fixed_seconds * factor
        )


@dataclass(frozen=True)
class Cluster:
    """What the GPUs are joined by, and how Horovod uses it."""

    network: Network
    algorithm: str = "hierarchical"
    element_bytes: int = 4
    horovod: Horovod = field(default_factory=Horovod)
    spread: float = SPREAD
    between_nodes: float = BETWEEN_NODES
    input_limit: float | None = None  # images/s that a node can read and decode
    max_minibatch: int | None = None  # n shrinks where kn would exceed it

    def images(self, step: Step, gpus: int) -> int:
        """Return n, the images of one GPU in a step on so many."""
        if self.max_minibatch is None:
            return step.images
        return max(1, min(step.images, self.max_minibatch // gpus))


@dataclass(frozen=True)
class Prediction:
    """A step on so many GPUs; its parts in seconds follow one another."""

    gpus: int
    images: int  # of one GPU
    algorithm: str
    compute: float  # of one GPU left to itself
    stragglers: float  # that the slowest takes longer
    nodes: float  # that a step over several nodes takes longer, as published runs did
    network: float  # that communication outlasts backprop
    input: float  # that images come later than that
    hidden: float  # of communication, behind backprop
    allreduces: int

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.compute + self.stragglers + self.nodes + self.network + self.input

    @property
    def minibatch(self) -> int:
        """kn: the images of all GPUs in a step."""
        return self.gpus * self.images

    @property
    def images_per_second(self) -> float:
        """Of all GPUs."""
        return self.minibatch / self.seconds

    @property
    def bound(self) -> str:
        """The step's largest part."""
        return max(PARTS, key=lambda part: getattr(self, part))

    def hours(self, epochs: float, images: int = IMAGENET) -> float:
        """Return the hours of so many passes over so many images, without validation."""
        return epochs * images / self.images_per_second / 3600

    def efficiency(self, base: Prediction) -> float:
        """Return a GPU's images/s by those of a GPU of ``base``."""
        return (self.images_per_second / self.gpus) / (base.images_per_second / base.gpus)


def predict(step: Step, gradients: Sequence[Gradient], cluster: Cluster, gpus: int) -> Prediction:
    """Return the step on so many GPUs, where ``step`` is that of one GPU alone."""
    network = cluster.network
    step = step.with_images(cluster.images(step, gpus))
    late = step.seconds * (slowdown(gpus, cluster.spread) - 1)
    nodes = step.seconds * cluster.between_nodes if network.nodes(gpus) > 1 else 0.0
    slow = step.seconds + late + nodes
    exposed, hidden, allreduces = 0.0, 0.0, 0
    if gpus > 1:
        allreduce = ALGORITHMS[cluster.algorithm]
        latency = network.latency if network.nodes(gpus) > 1 else network.gpu_latency
        overlap = simulate(
            gradients,
            cluster.element_bytes,
            slow * step.backward_share,
            lambda size: allreduce(size, gpus, network),
            2 * steps(gpus) * latency,  # which rank is ready is gathered and broadcast, by a tree
            cluster.horovod,
        )
        exposed, hidden, allreduces = overlap.exposed, overlap.hidden, overlap.allreduces
    waits = 0.0
    if cluster.input_limit is not None:
        images = step.images * min(gpus, network.gpus_per_node)
        waits = max(0.0, images / cluster.input_limit - slow - exposed)
    return Prediction(
        gpus=gpus,
        images=step.images,
        algorithm=cluster.algorithm,
        compute=step.seconds,
        stragglers=late,
        nodes=nodes,
        network=exposed,
        input=waits,
        hidden=hidden,
        allreduces=allreduces,
    )


def of_one_gpu(step: Step, gradients: Sequence[Gradient], cluster: Cluster) -> Step:
    """Return the step of one GPU that on ``step.gpus`` of them takes what was measured there."""
    if step.gpus == 1:
        return step
    # The measured one had its n, and images enough.
    cluster = replace(cluster, input_limit=None, max_minibatch=None)
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if predict(step.scaled(middle), gradients, cluster, step.gpus).seconds > step.seconds:
            high = middle
        else:
            low = middle
    return replace(step.scaled(low or high), gpus=1)
