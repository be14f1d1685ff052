"""Decide how a run's JPEGs are decoded with a GPU: one probe a node, and one choice for all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from dali_pipeline.dataset.index import Index
from dali_pipeline.loading.decoding import cache
from dali_pipeline.loading.decoding.verdict import (
    WAYS,
    Node,
    Verdict,
    choose,
    describe,
    needed_ways,
)
from dali_pipeline.sampling.augmentation import augments
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import Processes
from hvd_utils.config.settings import Settings


def decide_decoding(
    settings: Settings,
    splits: tuple[Index, Index],
    world: Processes,
    device: Any,
    run: Path | str | None = None,
) -> Settings:
    """Return the settings with --decode decided; collective.

    ``device`` is this process's torch.device, ``run`` the folder of a run that may go on. Raises
    BadInput where the way that was asked for has no effect here or did not pass the probe.
    """
    decode: str = settings.decode
    here = f"--loader {settings.loader} on {device.type}"
    here += " with augmentation" * augments(settings)
    if here != "--loader dali on cuda":
        if decode in ("gpu", "hardware"):
            raise BadInput(
                f"--decode {decode} is for --loader dali on a GPU without --augment and --erase, "
                f"and this is {here}: leave it out"
            )
        return settings.model_copy(update={"decode": "cpu"})
    before = world.broadcast(decoded_before(run) if world.is_root else None)
    if decode != "cpu":
        nodes = probe_nodes(needed_ways(decode), settings, splits, world, device.index)
        decode = choose(decode, nodes, before)
        if world.is_root:
            print(describe(decode, nodes), flush=True)
    if world.is_root and before not in (None, decode):
        print(
            f"warning: this run's JPEGs were decoded by --decode {before} so far, from here on by "
            f"{decode}: their pixels differ by rounding",
            flush=True,
        )
    return settings.model_copy(update={"decode": decode})


def decoded_before(run: Path | str | None) -> str | None:
    """Return the way by which a run's images were decoded so far; None where nothing tells."""
    if run is None:
        return None
    try:
        recorded = yaml.safe_load(Path(run, "settings.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    way = recorded.get("decode") if isinstance(recorded, dict) else None
    return way if way in WAYS else None


def probe_nodes(
    ways: Iterable[str],
    settings: Settings,
    splits: tuple[Index, Index],
    world: Processes,
    device: int,
) -> list[Node]:
    """Return what each node's first process found of ``ways``, on every rank; collective."""
    found = None
    if world.local_rank == 0:
        threads = settings.loader_threads or world.cores
        found = (world.host, probe_here(ways, settings, splits, device, threads))
    return [node for node in world.gather(found) if node]


def probe_here(
    ways: Iterable[str],
    settings: Settings,
    splits: tuple[Index, Index],
    device: int,
    threads: int,
    *,
    afresh: bool = False,
) -> dict[str, Verdict]:
    """Return this node's verdicts on ``ways``: those that are kept, or else a probe's."""
    # Imported here: they need DALI, which not every loader does.
    from dali_pipeline.loading.decoding.crops import planned_crops
    from dali_pipeline.loading.decoding.probe import DECODERS, probe

    key = cache.probe_key(device, splits[0].root)
    file = cache.verdict_file(key)
    verdicts = None if afresh else cache.recall(file, ways)
    if verdicts is None:
        decoders = {way: DECODERS[way] for way in ways}
        crops = planned_crops(splits, settings)
        try:
            verdicts = probe(crops, decoders, device, threads)
        except OSError as error:  # a full disk, no more processes: no reason to end the others
            verdict = Verdict(f"could not be probed: {error}", lasting=False)
            verdicts = dict.fromkeys(ways, verdict)
        cache.remember(file, key, verdicts)
    return verdicts
