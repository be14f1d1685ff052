"""The environment variables that configure Horovod (section 4).

Horovod reads them once, in ``hvd.init()``. A variable that the user has set, by hand or by a flag
of horovodrun, stays as it is.
"""

from __future__ import annotations

import math
import os

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import RANK_VARIABLES
from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend import timeline
from hvd_utils.horovod_backend.autotune import log_of
from hvd_utils.horovod_backend.gradient_buckets import MB, bucket_mb

# Not measured here: NVIDIA's MLPerf submissions of ResNet-50 with Horovod (v3.0, v4.0) have
# HOROVOD_CYCLE_TIME=0.1, a fusion buffer of 64 MB, and 2 streams on one node, 1 on 316.
GPU_CYCLE_MS = 0.1
GPU_FUSION_MB = 64.0
ALONE_CYCLE_MS = "50"  # a process alone has nothing to sum, and looking takes 2 % of a core

# On a CPU Horovod's thread takes what it uses from backprop. It sleeps until there is something to
# sum, and while bytes travel between nodes (patches/horovod-0.28.1; not tried with GPUs), where
# MPI's ring is twice as fast as the sums it would choose, which use one direction at a time.
ASLEEP = {"HOROVOD_SLEEP_WHEN_IDLE": "1", "OMPI_MCA_coll_libnbc_iallreduce_algorithm": "1"}

START_SECONDS = 3600.0  # that a start may take, before Horovod ends a sum that a rank does not join


def prepare(settings: Settings, *, cuda: bool) -> None:
    """Set Horovod's variables, before ``hvd.init()``; raise BadInput for what cannot be."""
    elastic = os.environ.get("HOROVOD_ELASTIC") == "1"
    variables = horovod_variables(settings, cuda=cuda, elastic=elastic)
    if not any(name in os.environ for name in RANK_VARIABLES):
        variables["HOROVOD_CYCLE_TIME"] = ALONE_CYCLE_MS
    variables["HOME"] = os.path.expanduser("~")  # without which Open MPI does not start
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def horovod_variables(settings: Settings, *, cuda: bool, elastic: bool) -> dict[str, str]:
    """Return the variables that Horovod is to have before ``hvd.init()``.

    Raises BadInput for what an elastic launch cannot have.
    """
    bucket = bucket_mb(settings, cuda=cuda)
    variables = {}
    if not cuda:
        variables |= ASLEEP
    if bucket:
        variables["HOROVOD_DISABLE_GROUP_FUSION"] = "1"
    if settings.profile:
        variables["HOROVOD_TIMELINE"] = timeline.LATER
    if settings.stall_timeout:
        # The watchdog comes first, and tells more. But it begins with the run, and ranks wait in a
        # sum for one that looks through the data set, fetches weights, or compiles.
        limit = 2 * settings.stall_timeout + START_SECONDS
        variables["HOROVOD_STALL_SHUTDOWN_TIME_SECONDS"] = str(math.ceil(limit))
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
        # The host continues once an allreduce is enqueued, and the default stream waits for it.
        variables["HOROVOD_ENABLE_ASYNC_COMPLETION"] = "1"
    return variables


def _elastic(settings: Settings) -> dict[str, str]:
    if settings.profile:
        raise BadInput(
            "--profile does not go with an elastic launch, whose ranks change: leave it out"
        )
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
