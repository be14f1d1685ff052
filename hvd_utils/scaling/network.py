"""Networks by name, from data sheets and general constants; nothing here is fitted to a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hvd_utils.cli.errors import BadInput

GBIT = 1e9 / 8  # bytes/s
MICROSECOND = 1e-6

# The share of a link's line rate that carries gradients. InfiniBand and RoCE: NCCL's cost model
# (src/graph/tuning.cc, its protocol LL128) counts on 0.92.
RDMA_GOODPUT = 0.92
# TCP: 1448 of 1538 bytes of an Ethernet frame are data, and Horovod gains nothing beyond about
# 25 Gbit/s of a faster link (Zhang et al. 2020, arXiv 2006.10103).
TCP_GOODPUT, TCP_LIMIT = 1448 / 1538, 25.0
# Of NVLink's rate, NCCL counts on 235 of an A100's 300 GB/s (tuning.cc, compCap80).
INSIDE_GOODPUT = 235 / 300

# Seconds for one message of a collective. NCCL's cost model (tuning.cc, hwLat, ring, Simple): 9.6
# µs by InfiniBand, 3.4 µs by NVLink, 5.7 µs by PCIe. TCP: 30 µs is usual for two Linux hosts at one
# switch.
RDMA_LATENCY, TCP_LATENCY = 9.6 * MICROSECOND, 30 * MICROSECOND
NVLINK_LATENCY, PCIE_LATENCY = 3.4 * MICROSECOND, 5.7 * MICROSECOND

# GB/s that one GPU sends within its node, in one direction (NVIDIA's data sheets for NVLink, half
# of the "total"; PCIe 3.0 × 16 for those without).
INSIDE = {"PCIe": 16, "P100": 80, "V100": 150, "A100": 300, "H100": 450}


@dataclass(frozen=True)
class Network:
    """What joins the GPUs. Rates are for one direction; latencies in seconds a message."""

    name: str
    links: int  # of a node
    gbit: float  # line rate of a link, Gbit/s
    goodput: float  # the share of it that carries gradients
    latency: float  # between nodes
    gpus_per_node: int
    gpu_bandwidth: float  # of one GPU within its node, bytes/s, as collectives reach it
    gpu_latency: float  # within a node
    source: str

    @property
    def node_gbit(self) -> float:
        """Gbit/s that a node's links carry together, as collectives reach it."""
        return self.links * self.gbit * self.goodput

    @property
    def node_bandwidth(self) -> float:
        """The same in bytes/s."""
        return self.node_gbit * GBIT

    def nodes(self, gpus: int) -> int:
        """Return how many nodes so many GPUs fill."""
        return math.ceil(gpus / self.gpus_per_node)

    def with_node_gbit(self, gbit: float) -> Network:
        """Return this network with so many usable Gbit/s a node."""
        return replace(self, links=1, gbit=gbit, goodput=1.0)


def _tcp(gbit: float, source: str) -> Network:
    goodput = min(TCP_GOODPUT, TCP_LIMIT / gbit)
    return _network(f"ethernet-{gbit:.0f}", 1, gbit, goodput, TCP_LATENCY, 8, "P100", source)


def _rdma(name: str, links: int, gbit: float, gpus: int, gpu: str, source: str) -> Network:
    return _network(name, links, gbit, RDMA_GOODPUT, RDMA_LATENCY, gpus, gpu, source)


def _network(
    name: str,
    links: int,
    gbit: float,
    goodput: float,
    latency: float,
    gpus: int,
    gpu: str,
    source: str,
) -> Network:
    within = inside(gpu)
    return Network(name, links, gbit, goodput, latency, gpus, *within, f"{source}; {gpu} nodes")


def inside(gpu: str) -> tuple[float, float]:
    """Return bandwidth (bytes/s) and latency (s) of a GPU of INSIDE within its node."""
    latency = PCIE_LATENCY if gpu == "PCIe" else NVLINK_LATENCY
    return INSIDE[gpu] * 1e9 * INSIDE_GOODPUT, latency


# From the least bandwidth of a node to the most, which stands for what they cost.
PRESETS = {
    network.name: network
    for network in (
        _tcp(10, "10 Gbit/s Ethernet, TCP"),
        _tcp(25, "25 Gbit/s Ethernet, TCP"),
        _rdma("roce-25", 1, 25, 8, "P100", "25 Gbit/s RoCE"),
        _tcp(50, "50 Gbit/s Ethernet, TCP: the paper's servers"),
        _rdma("fdr", 1, 54.5, 8, "P100", "InfiniBand FDR, 4 × 14.06 Gbaud at 64/66"),
        _tcp(100, "100 Gbit/s Ethernet, TCP"),
        _rdma("roce-100", 1, 100, 8, "V100", "100 Gbit/s RoCE"),
        _rdma("edr", 1, 100, 8, "V100", "InfiniBand EDR"),
        _rdma("edr-2x", 2, 100, 4, "V100", "2 × InfiniBand EDR: an ABCI node"),
        _rdma("hdr", 1, 200, 8, "A100", "InfiniBand HDR"),
        _rdma("edr-4x", 4, 100, 8, "V100", "4 × InfiniBand EDR: DGX-1"),
        _rdma("hdr-8x", 8, 200, 8, "A100", "8 × InfiniBand HDR: DGX A100"),
        _rdma("ndr-8x", 8, 400, 8, "H100", "8 × InfiniBand NDR: DGX H100 and H200"),
    )
}


def preset(name: str) -> Network:
    """Return the network of that name; raise BadInput, which lists them, if there is none."""
    if name not in PRESETS:
        raise BadInput(f"no network {name}: --network takes one of {', '.join(PRESETS)}")
    return PRESETS[name]
