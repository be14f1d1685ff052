"""What one of a node's processes takes of it: its GPU and its cores. Needs no torch."""

from __future__ import annotations

import os
import socket

from hvd_utils.failure import BadInput


def binding_hint(allowed: int, cores: int, local_size: int) -> str | None:
    """Return a warning where a launcher bound this process to fewer cores than its share.

    ``allowed`` of the node's ``cores`` may be used by this one of ``local_size`` processes. Open
    MPI binds each rank to one core unless told otherwise, and decoding wants them all.
    """
    if allowed >= cores // local_size or "OMPI_COMM_WORLD_RANK" not in os.environ:
        return None
    return (
        f"warning: {local_size} processes on {socket.gethostname()} may use {allowed} of its "
        f"{cores} cores each: launch with --bind-to none, or more cores a rank"
    )


def gpu_index(local_rank: int, local_size: int, visible: int) -> int:
    """Return the GPU of a local rank among those ``visible`` to it.

    A scheduler may show each task only its own GPU, which then is number 0 for all of them.
    """
    if visible == 1:
        return 0
    if local_size > visible:
        raise BadInput(
            f"{local_size} processes but {visible} GPUs on {socket.gethostname()}: "
            f"start {visible} processes a node"
        )
    return local_rank
