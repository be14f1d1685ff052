"""Seconds of one allreduce by algorithm: latency per message plus bytes over bandwidth.

The model is that of Thakur, Rabenseifner and Gropp 2005 (Optimization of Collective Communication
Operations in MPICH), with one latency and bandwidth within a node and another between nodes, as in
NCCL's cost model (src/graph/tuning.cc). Adding up is taken to cost nothing beside moving.

Ranks fill the nodes one after another. In all of them b is the number of bytes of the buffer, p
that of GPUs, m that of nodes and g that of GPUs in a node.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from hvd_utils.scaling.network import Network


def ring(size: float, gpus: int, network: Network) -> float:
    """Return the seconds of a flat ring: 2(p − 1) messages, 2(p − 1)/p·b bytes by every GPU.

    Of a ring's messages 2(m − 1) go between nodes one after another, the others within them; its
    bytes cross each node's links once (NCCL's ring; Patarasuk and Yuan 2009).
    """
    nodes = network.nodes(gpus)
    between = 2 * (nodes - 1)
    within = 2 * (gpus - 1) - between
    narrowest = network.gpu_bandwidth
    if nodes > 1:
        narrowest = min(narrowest, network.node_bandwidth)
    latency = between * network.latency + within * network.gpu_latency
    return latency + ring_bytes(size, gpus) / narrowest


def ring_bytes(size: float, ranks: int) -> float:
    """Return the bytes that each of so many ranks sends: 2(p − 1)/p·b (paper, section 4)."""
    return 2 * (ranks - 1) / ranks * size


def tree(size: float, gpus: int, network: Network) -> float:
    """Return the seconds of a double binary tree over nodes, of chains within them (NCCL's tree).

    Up and down again: 2(g − 1) messages within, 2·log₂ m between nodes; each node sends 2b bytes
    (Sanders, Speck and Träff 2009).
    """
    if gpus == 1:
        return 0.0
    nodes, inside = network.nodes(gpus), min(gpus, network.gpus_per_node)
    narrowest = network.gpu_bandwidth
    if nodes > 1:
        narrowest = min(narrowest, network.node_bandwidth)
    latency = 2 * (inside - 1) * network.gpu_latency + 2 * steps(nodes) * network.latency
    return latency + 2 * size / narrowest


def halving_doubling(size: float, gpus: int, network: Network) -> float:
    """Return the seconds of flat recursive halving and doubling: 2·log₂ p messages.

    It halves at the greatest distance first, as MPICH does (Rabenseifner 2004), knowing nothing of
    nodes: each of a node's g GPUs sends 2(m − 1)/m·b bytes over the node's links.
    """
    nodes, inside = network.nodes(gpus), min(gpus, network.gpus_per_node)
    latency = 2 * steps(inside) * network.gpu_latency + 2 * steps(nodes) * network.latency
    outer = inside * ring_bytes(size, nodes) / network.node_bandwidth
    return latency + outer + ring_bytes(size / nodes, inside) / network.gpu_bandwidth


def hierarchical(size: float, gpus: int, network: Network) -> float:
    """Return the seconds of the paper's three phases (section 4), which are also a 2D torus's.

    A ring reduce-scatter within each node, halving and doubling between nodes, a ring allgather
    within: 2(g − 1) messages and 2(g − 1)/g·b bytes within, 2·log₂ m messages and 2(m − 1)/m·b
    bytes a node between.
    """
    nodes, inside = network.nodes(gpus), min(gpus, network.gpus_per_node)
    within = 2 * (inside - 1) * network.gpu_latency
    within += ring_bytes(size, inside) / network.gpu_bandwidth
    between = 2 * steps(nodes) * network.latency
    return within + between + ring_bytes(size, nodes) / network.node_bandwidth


def steps(ranks: int) -> int:
    """Return log₂ of a number of ranks, rounded up."""
    return math.ceil(math.log2(ranks))


Allreduce = Callable[[float, int, Network], float]  # bytes, GPUs, network: seconds

ALGORITHMS: dict[str, Allreduce] = {
    "ring": ring,
    "tree": tree,
    "halving-doubling": halving_doubling,
    "hierarchical": hierarchical,
}
