"""Published runs, and the prediction for each by a planner that was fitted to the others.

Each gives a rate at a small number of GPUs, from which the step of one is taken, and the efficiency
at a large one, which is predicted. Networks are presets, from data sheets; the spread is the
assumed one everywhere. What a publication does not state is assumed and listed in ``assumed``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hvd_utils.paper.results import STEP_SECONDS
from hvd_utils.scaling.calibration import BETWEEN_NODES, LEFT_OUT
from hvd_utils.scaling.gradients import gradients_of
from hvd_utils.scaling.network import PRESETS, inside
from hvd_utils.scaling.overlap import Horovod
from hvd_utils.scaling.predict import Cluster, Step, of_one_gpu, predict

FP16 = 2  # bytes


@dataclass(frozen=True)
class Point:
    """One published run. ``step`` is what it was at ``step.gpus``."""

    name: str
    step: Step
    gpus: int
    efficiency: float  # published: images/s of a GPU by those at ``base`` GPUs
    cluster: Cluster
    source: str
    base: int | None = None  # GPUs that the efficiency is against; None: step.gpus
    images: int | None = None  # of a GPU, where not those of ``step``
    assumed: str = ""
    group: str = ""  # the cluster it is of, as calibration leaves it out


@dataclass(frozen=True)
class Validation:
    """A point beside what was predicted of it."""

    point: Point
    predicted: float  # efficiency, the point's cluster left out of the fit

    @property
    def error(self) -> float:
        """Predicted less published efficiency: above 0 where the planner promises too much."""
        return self.predicted - self.point.efficiency

    @property
    def interval(self) -> float:
        """The largest error at the other clusters."""
        return LEFT_OUT[self.point.group].interval

    @property
    def holds(self) -> bool:
        """Whether the error is within that interval."""
        return abs(self.error) <= self.interval


def validate() -> list[Validation]:
    """Return the prediction of each point, its own cluster left out of the calibration."""
    found = []
    for group, (value, _) in LEFT_OUT.items():
        points = [point for point in published_points(value) if point.group == group]
        found += [Validation(point, predicted_efficiency(point, value)) for point in points]
    return found


def predicted_efficiency(point: Point, between_nodes: float) -> float:
    """Return the planner's prediction for a point, calibrated by ``between_nodes``."""
    gradients = gradients_of(point.step.model)
    cluster = replace(point.cluster, between_nodes=between_nodes)
    one = of_one_gpu(point.step, gradients, cluster)
    base = predict(one, gradients, cluster, point.base or point.step.gpus)
    there = one.with_images(point.images or one.images)
    return predict(there, gradients, cluster, point.gpus).efficiency(base)


def fixed_seconds(point: Point, between_nodes: float) -> float:
    """Return the fixed part of a step with which the planner meets a point that has another n."""
    low, high = 0.0, point.step.seconds * 0.9
    for _ in range(30):
        middle = (low + high) / 2
        tried = replace(point, step=replace(point.step, fixed_seconds=middle))
        if predicted_efficiency(tried, between_nodes) > point.efficiency:
            low = middle
        else:
            high = middle
    return (low + high) / 2


PAPER = "Goyal et al. 2017, arXiv 1706.02677"
PAPER_CLUSTER = Cluster(PRESETS["ethernet-50"])
# Backprop takes 0.125 s (section 4).
PAPER_STEP = Step(STEP_SECONDS[8], 32, backward_share=0.125 / STEP_SECONDS[8], gpus=8, source=PAPER)

# Horovod's own benchmark (its docs/benchmarks): 16 GPUs made 1656.82 images/s.
UBER = Step(64 * 16 / 1656.82, 64, gpus=16, model="resnet101")
UBER_CLUSTER = Cluster(
    replace(PRESETS["roce-25"], gpus_per_node=4),
    "ring",
    horovod=Horovod(fusion_bytes=64 * 2**20, cycle_seconds=5e-3),
)

DLPERF = "Oneflow DLPerf report v1.0 of 2020: DALI and Horovod, V100"
DLPERF_CLUSTER = Cluster(
    PRESETS["edr"], "ring", horovod=Horovod(fusion_bytes=64 * 2**20, cycle_seconds=5e-3)
)

_BANDWIDTH, _LATENCY = inside("PCIe")  # P40s have no NVLink
JIA_NETWORK = replace(PRESETS["roce-100"], gpu_bandwidth=_BANDWIDTH, gpu_latency=_LATENCY)

# MLPerf: images/s of a GPU are the median over training blocks of the first result's log, which
# include evaluation; the logs' own "throughput" is how fast the host queues work, which at 512 GPUs
# is three times what the GPUs do. Horovod as configured there; NCCL chooses trees at this size.
MLPERF = "MLPerf training results, NVIDIA, ResNet-50, MXNet + Horovod + DALI"
MLPERF_CLUSTER = Cluster(
    PRESETS["ndr-8x"],
    "tree",
    FP16,
    Horovod(fusion_bytes=64 * 2**20, cycle_seconds=0.1e-3),
)


def mlperf(version: str, alone: float, gpus: int, images: int, rate: float) -> Point:
    """Return a point of H100s, from images/s a GPU: ``alone`` at 8 with n = 400, ``rate`` there."""
    return Point(
        f"MLPerf {version}, {gpus:,} H100, n = {images}",
        Step(400 / alone, 400, gpus=8),
        gpus,
        rate / alone,
        MLPERF_CLUSTER,
        MLPERF,
        images=images,
        assumed="fixed part of the step, as MLPerf v2.1 has it at 8 and 32 H100",
        group="MLPerf",
    )


# The step at small n is not published. Its fixed part is taken from another round of the same GPU.
MLPERF_FIXED_FROM = mlperf("v2.1 preview", 6514, 32, 100, 5253)


def _with_fixed_part(points: Sequence[Point], between_nodes: float) -> tuple[Point, ...]:
    fixed = fixed_seconds(MLPERF_FIXED_FROM, between_nodes)
    return tuple(replace(point, step=replace(point.step, fixed_seconds=fixed)) for point in points)


OTHERS = (
    Point(
        "paper, 256 P100",
        PAPER_STEP,
        256,
        STEP_SECONDS[8] / STEP_SECONDS[256],
        PAPER_CLUSTER,
        PAPER,
        group="paper",
    ),
    Point(
        "paper, 352 P100",
        PAPER_STEP,
        352,
        STEP_SECONDS[8] / STEP_SECONDS[352],
        PAPER_CLUSTER,
        PAPER,
        group="paper",
    ),
    Point(
        "Horovod, ResNet-101, 512 P100",
        UBER,
        512,
        0.90,
        UBER_CLUSTER,
        "Horovod's docs/benchmarks: RoCE 25 Gbit/s, 4 GPUs a node",
        base=1,
        assumed="the example's output is of the same servers",
        group="Horovod",
    ),
    Point(
        "DLPerf MXNet, 8 V100",
        Step(96 / 389.71, 96),
        8,
        2947.72 / 8 / 389.71,
        DLPERF_CLUSTER,
        DLPERF,
        group="DLPerf",
    ),
    Point(
        "DLPerf MXNet, 32 V100",
        Step(96 / 389.71, 96),
        32,
        10419.21 / 32 / 389.71,
        DLPERF_CLUSTER,
        DLPERF,
        group="DLPerf",
    ),
    Point(
        "DLPerf TensorFlow, 32 V100",
        Step(128 / 362.44, 128),
        32,
        9514.64 / 32 / 362.44,
        DLPERF_CLUSTER,
        DLPERF,
        group="DLPerf",
    ),
    Point(
        "Akiba 2017, 1,024 P100",
        Step(0.80 * 900 * 32768 / (90 * 1_281_167), 32, gpus=8),
        1024,
        0.80,
        Cluster(PRESETS["fdr"], "ring", FP16, Horovod(overlap=False)),
        "Akiba et al. 2017, arXiv 1711.04325: 15 minutes",
        assumed="one FDR link; against one node, whose step follows from time and efficiency; "
        "fp16, summed after backprop",
        group="Akiba",
    ),
    Point(
        "Jia 2018, 2,048 P40",
        Step(0.879 * 396 * 65536 / (90 * 1_281_167), 32, gpus=8),
        2048,
        0.879,
        Cluster(JIA_NETWORK, "hierarchical", FP16),
        "Jia et al. 2018, arXiv 1807.11205: 6.6 minutes",
        assumed="against one node of 8, whose step follows from time and efficiency",
        group="Jia",
    ),
    Point(
        "Mikami 2018, 1,088 V100",
        Step(32 / 600, 32, gpus=4),
        1088,
        0.9162,
        Cluster(PRESETS["edr-2x"], "hierarchical", FP16),
        "Mikami et al. 2018, arXiv 1811.05233",
        assumed="a V100 makes 600 images/s in fp16, its rate being unpublished; against one node",
        group="Mikami",
    ),
)

MLPERF_POINTS = (
    mlperf("v3.0", 6972, 64, 50, 4585),
    mlperf("v3.0", 6972, 512, 40, 4046),
    mlperf("v3.0", 6972, 768, 42, 4402),
    mlperf("v3.0", 6972, 3584, 16, 2724),
    mlperf("v4.0", 7128, 64, 50, 4883),
    mlperf("v4.0", 7128, 2528, 16, 2710),
)


def published_points(between_nodes: float = BETWEEN_NODES) -> tuple[Point, ...]:
    """Return all points; the fixed part of MLPerf's step depends on the calibration."""
    return OTHERS + _with_fixed_part(MLPERF_POINTS, between_nodes)
