"""The child process: one request a line on standard input, one answer a line on standard output.

python -m hvd_utils.preflight.child_tasks LOCAL_RANK
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import DIGITS, Settings
from hvd_utils.horovod_backend.node import see_own_gpu_first

if TYPE_CHECKING:
    import torch

_seen: dict[str, Any] = {}  # the images, between two requests


def imports(settings: Settings, place: Mapping[str, int]) -> dict[str, Any]:
    """Import what the job imports; return what Horovod was built with and how many GPUs it sees."""
    import nvidia.dali  # noqa: F401
    import torch

    from hvd_utils.horovod_backend.world import built_with, unseen_gpu

    gpus = torch.cuda.device_count() if settings.device != "cpu" else 0
    return {
        **built_with(),
        "gpus": gpus,
        "unseen": None if settings.device == "cpu" else unseen_gpu(),
    }


def data(settings: Settings, place: Mapping[str, int], decode: int) -> dict[str, Any]:
    """Look at the data from this node and decode some images; see ``data``."""
    from hvd_utils.preflight.checks.data import decode_some

    facts, (train, val) = _look(settings)
    found = [
        decode_some(train, decode, seed=place["rank"]),
        decode_some(val, decode // 4, seed=place["rank"]),
    ]
    facts["decoded"] = sum(one["decoded"] for one in found)
    facts["bad"] = {path: reason for one in found for path, reason in one["bad"].items()}
    return facts


def weights(settings: Settings, place: Mapping[str, int], classes: int) -> str:
    """Read the weights of --init, match them with the model, and return what the job will say."""
    from hvd_utils.nn.models import recipe_model
    from hvd_utils.weights.initial import describe, match
    from hvd_utils.weights.sources import digest, read_weights

    found = read_weights(settings.init)
    fits = match(recipe_model(settings, classes), found, settings.init, settings.model)
    return describe(fits, settings.init, digest(found)).removeprefix("init: ")


def compute(settings: Settings, place: Mapping[str, int], classes: int, seconds: float) -> Any:
    """Measure images/s of training alone; see ``throughput``."""
    from hvd_utils.preflight.checks.throughput import training_rate

    where, ranks = _device(settings, place), place["size"]
    return training_rate(settings, where, _cores(place), ranks, classes, seconds)


def decode(settings: Settings, place: Mapping[str, int], afresh: bool) -> dict[str, Any]:
    """Probe the ways of decoding that the job may take on its GPU; nothing on a CPU."""
    from dali_pipeline.loading.decoding.choose import probe_here
    from dali_pipeline.loading.decoding.verdict import needed_ways

    where = _device(settings, place)
    if where.type != "cuda":
        return {}
    ways, threads = needed_ways(settings.decode), settings.loader_threads or _cores(place)
    return probe_here(ways, settings, _look(settings)[1], where.index, threads, afresh=afresh)


def load(settings: Settings, place: Mapping[str, int], seconds: float, decode: str) -> Any:
    """Measure images/s of the input pipeline alone; see ``throughput``."""
    from hvd_utils.preflight.checks.throughput import loading_rate

    _, splits = _look(settings)
    settings = settings.model_copy(update={"decode": decode})
    where = _device(settings, place)
    return loading_rate(settings, splits, where, _cores(place), place["rank"], seconds)


def device(settings: Settings, place: Mapping[str, int]) -> str:
    """Return the kind of device that this rank would train on."""
    return _device(settings, place).type


def meet(settings: Settings, place: Mapping[str, int], shared: bool) -> Any:
    """Hold a meeting for ``sum``; see ``device_sums``."""
    from hvd_utils.preflight.checks import device_sums

    return device_sums.meet(shared)


def sum_on_device(
    settings: Settings,
    place: Mapping[str, int],
    groups: Sequence[Sequence[int]],
    meetings: Sequence[Mapping[str, Any]],
    repetitions: int,
    size: int,
) -> float:
    """Measure the seconds of a sum over this rank's group of ``groups``; see ``device_sums``."""
    from hvd_utils.preflight.checks.device_sums import timed_sum

    rank = place["rank"]
    number = next(number for number, ranks in enumerate(groups) if rank in ranks)
    where = _device(settings, place)
    return timed_sum(where, rank, groups[number], meetings[number], repetitions, size)


def look(settings: Settings, place: Mapping[str, int]) -> dict[str, Any]:
    """Open the images, so that nothing but loading is measured later."""
    _look(settings)
    return {}


def _look(settings: Settings) -> Any:
    from dali_pipeline.dataset.digits import ensure_digits
    from dali_pipeline.dataset.open_data import EMBEDDED, url_of_data
    from dali_pipeline.storage.address import check_address
    from hvd_utils.preflight.checks.data import see, see_remote

    if "data" not in _seen and (url := url_of_data(settings)):
        check_address(url)
        _seen["data"] = see_remote(settings)
    if "data" not in _seen:
        folder = (
            EMBEDDED if settings.data == DIGITS else Path(settings.data).expanduser().absolute()
        )
        if settings.data == DIGITS:
            ensure_digits(folder)
        _seen["data"] = see(folder)
    return _seen["data"]


def _device(settings: Settings, place: Mapping[str, int]) -> torch.device:
    from hvd_utils.preflight.checks.throughput import choose_device

    return choose_device(settings, place["local_rank"], place["local_size"])


def _cores(place: Mapping[str, int]) -> int:
    """Return this rank's share of the cores, as ``start_world`` computes it."""
    allowed, present = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    return max(1, min(allowed, present // place["local_size"]))


TASKS: dict[str, Callable[..., Any]] = {
    "imports": imports,
    "data": data,
    "decode": decode,
    "look": look,
    "weights": weights,
    "compute": compute,
    "load": load,
    "device": device,
    "meet": meet,
    "sum": sum_on_device,
}


def main() -> None:
    """Answer requests until standard input ends, with the parent."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    see_own_gpu_first(int(sys.argv[1]))  # as the job does
    for line in sys.stdin:
        request = json.loads(line)
        task = TASKS[request.pop("task")]
        request["settings"] = Settings.model_validate(request["settings"])
        try:
            reply = {"facts": task(**request)}
        except BadInput as error:
            reply = {"error": str(error)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
