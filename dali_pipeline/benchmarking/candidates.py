"""The candidates by name, and what each is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dali_pipeline.benchmarking import ffcv_peer, formats, peers, stages
from dali_pipeline.benchmarking.bench import Bench, Missing, Stream
from hvd_utils.cli.errors import BadInput

CANDIDATES: dict[str, Callable[[Bench], Stream]] = {
    "read": stages.read,
    "decode": stages.decode,
    "augment": stages.augment,
    "full": stages.full,
    "full_gpu": stages.full_gpu,
    "full_hardware": stages.full_hardware,
    "torchvision_loader": stages.torchvision_loader,
    "bare_decode": peers.bare_decode,
    "torchvision_pil": peers.torchvision_pil,
    "torchvision_decoder": peers.torchvision_decoder,
    "webdataset": formats.webdataset,
    "full_reencoded": ffcv_peer.full_reencoded,
    "ffcv": ffcv_peer.ffcv,
}


# The candidates that decode on a GPU, by what --decode calls it.
ON_GPU = {"gpu": "full_gpu", "hardware": "full_hardware"}


def names_for(only: Sequence[str], processes: int, cuda: bool) -> list[str]:
    """Return what to measure: ``only``, or all that this many processes can measure here.

    Peers use the whole machine, so they are for one process; several measure the node's sum.
    """
    on_gpu = list(ON_GPU.values())
    if processes > 1:
        return ["full", *(on_gpu if cuda else [])]
    return list(only) or [name for name in CANDIDATES if cuda or name not in on_gpu]


def check_names(names: Iterable[str]) -> None:
    """Raise BadInput naming the first of ``names`` that is not a candidate's."""
    for name in names:
        if name not in CANDIDATES:
            raise BadInput(
                f"--only {name}: there is no such candidate; {', '.join(CANDIDATES)} are"
            )


def ours_against(name: str) -> str:
    """Return which of our own pipelines a candidate is held against: that on the same images."""
    return "full_reencoded" if name == "ffcv" else "full"


def open_streams(names: Iterable[str], bench: Bench) -> tuple[dict[str, Stream], dict[str, str]]:
    """Return the streams of these candidates and of what they are held against, in order.

    What cannot be measured here is in the second dictionary, with the reason.
    """
    wanted = {"full", *names, *map(ours_against, names)}
    streams, skipped = {}, {}
    for name, start in CANDIDATES.items():
        if name in wanted:
            try:
                streams[name] = start(bench)
            except Missing as reason:
                skipped[name] = str(reason)
    return streams, skipped
