"""How Horovod carries the gradients (section 4): its variables, and which go in one message.

Horovod reads its variables once, in ``hvd.init()``. What the user's environment has already, by
hand or by a flag of horovodrun, stays as it is.

Left to itself Horovod sums whatever is ready together, which differs from launch to launch, and so
does the rounding of a sum over three and more processes. In buckets the same gradients always
travel together, and runs repeat to the bit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

from hvd_utils.autotune import log_of
from hvd_utils.failure import RANK_VARIABLES, BadInput
from hvd_utils.settings import CommunicationSettings

MB = 2**20  # as Horovod counts

# For ResNet-50's 102 MB on 2 ranks of one CPU, and over 1 Gbit/s, buckets of 4 to 25 MB take the
# same time (python -m benchmarks.allreduce); 2 ranks on one node sum pieces of 4 MB in any case.
CPU_BUCKET_MB = 8.0
LAST_BUCKET_MB = 1.0  # of the first layers: while it travels nothing is left to compute
# Not measured here: PyTorch's DistributedDataParallel has buckets of 25 MB; NVIDIA's MLPerf
# submissions of ResNet-50 with Horovod (v3.0, v4.0) have HOROVOD_CYCLE_TIME=0.1, a fusion buffer of
# 64 MB, and 2 streams on one node, 1 on 316.
GPU_BUCKET_MB = 25.0
GPU_CYCLE_MS = 0.1
GPU_FUSION_MB = 64.0
ALONE_CYCLE_MS = "50"  # a process alone has nothing to sum, and looking takes 2 % of a core

# On a CPU Horovod's thread takes what it uses from backprop. It sleeps until there is something to
# sum, and while bytes travel between nodes (patches/horovod-0.28.1; not tried with GPUs), where
# MPI's ring is twice as fast as the sums it would choose, which use one direction at a time.
ASLEEP = {"HOROVOD_SLEEP_WHEN_IDLE": "1", "OMPI_MCA_coll_libnbc_iallreduce_algorithm": "1"}

Parameter = TypeVar("Parameter")


def prepare(settings: CommunicationSettings, *, cuda: bool) -> None:
    """Set Horovod's variables, before ``hvd.init()``; raise BadInput for what cannot be."""
    elastic = os.environ.get("HOROVOD_ELASTIC") == "1"
    variables = horovod_variables(settings, cuda=cuda, elastic=elastic)
    if not any(name in os.environ for name in RANK_VARIABLES):
        variables["HOROVOD_CYCLE_TIME"] = ALONE_CYCLE_MS
    variables["HOME"] = os.path.expanduser("~")  # without which Open MPI does not start
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def bucket_mb(settings: CommunicationSettings, *, cuda: bool) -> float:
    """Return the size of a bucket in MB; 0: Horovod fuses what is ready."""
    if settings.bucket_mb is not None:
        return settings.bucket_mb
    if settings.autotune is not None:  # what is tuned is fusion
        return 0
    return GPU_BUCKET_MB if cuda else CPU_BUCKET_MB


def horovod_variables(
    settings: CommunicationSettings, *, cuda: bool, elastic: bool
) -> dict[str, str]:
    """Return the variables that Horovod is to have before ``hvd.init()``.

    Raises BadInput for what an elastic launch cannot have.
    """
    bucket = bucket_mb(settings, cuda=cuda)
    variables = {}
    if not cuda:
        variables |= ASLEEP
    if bucket:
        variables["HOROVOD_DISABLE_GROUP_FUSION"] = "1"
    if elastic:
        return variables | _elastic(settings)
    fusion, cycle = settings.fusion_mb, settings.cycle_ms
    if settings.autotune is None:
        if fusion is None and bucket:
            fusion = bucket + 1  # Horovod pads each tensor a little
        if fusion is None and cuda:
            fusion = GPU_FUSION_MB
        if cycle is None and cuda:
            cycle = GPU_CYCLE_MS
    elif not settings.autotune.exists():
        variables["HOROVOD_AUTOTUNE"] = "1"
        variables["HOROVOD_AUTOTUNE_LOG"] = str(log_of(settings.autotune))
    if fusion is not None:
        variables["HOROVOD_FUSION_THRESHOLD"] = str(round(fusion * MB))
    if cycle is not None:
        variables["HOROVOD_CYCLE_TIME"] = f"{cycle:g}"
    if settings.allreduce != "flat":
        variables[f"HOROVOD_{settings.allreduce.upper()}_ALLREDUCE"] = "1"
    if settings.nccl_streams is not None:
        variables["HOROVOD_NUM_NCCL_STREAMS"] = str(settings.nccl_streams)
    if cuda:
        # The host goes on when a sum is enqueued, and the default stream waits for it.
        variables["HOROVOD_ENABLE_ASYNC_COMPLETION"] = "1"
    return variables


def _elastic(settings: CommunicationSettings) -> dict[str, str]:
    # Horovod 0.28.1 takes a fixed threshold and cycle out of its list of what can be tuned, and
    # crashes when hvd.init() in a new world looks for them there.
    for name in ("fusion_mb", "cycle_ms", "autotune"):
        if getattr(settings, name) is not None:
            flag = "--" + name.replace("_", "-")
            raise BadInput(
                f"{flag} does not go with an elastic launch, in which Horovod 0.28.1 would crash "
                "when processes change: leave it out"
            )
    return {}


def buckets(sizes: Sequence[tuple[Parameter, int]], limit_mb: float) -> list[list[Parameter]]:
    """Return parameters, given with their bytes, in buckets of at most ``limit_mb``.

    From the last to the first, as backprop makes their gradients. A larger one is a bucket by
    itself. The first layers' are a bucket of at most ``LAST_BUCKET_MB``: behind its sum there is
    nothing left to compute.
    """
    last = 0
    room = min(limit_mb, LAST_BUCKET_MB) * MB
    while last < len(sizes) and sizes[last][1] <= room:
        room -= sizes[last][1]
        last += 1
    groups: list[list[Parameter]] = []
    room = 0.0
    for parameter, size in reversed(sizes[last:]):
        if not groups or size > room:
            groups.append([])
            room = limit_mb * MB
        groups[-1].append(parameter)
        room -= size
    if last:
        groups.append([parameter for parameter, _ in reversed(sizes[:last])])
    return groups
