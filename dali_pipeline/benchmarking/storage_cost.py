"""What each order of training costs in requests and bytes, from a server with latency."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from dali_pipeline.benchmarking.images import open_images
from dali_pipeline.benchmarking.measure import machine, write_json
from dali_pipeline.dataset.index_file import open_splits
from dali_pipeline.dataset.open_remote import open_alone
from dali_pipeline.loading.dali.feed import Feed
from dali_pipeline.preparation.pack import pack
from dali_pipeline.preparation.shard import QUALITY, Encoding
from dali_pipeline.sampling.plan import Plan
from dali_pipeline.storage.range_server import RangeServer
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import Processes
from hvd_utils.config.settings import Settings

LATENCIES = (0, 10, 50)  # ms
SHARD_BYTES = 16_000_000
WINDOWS = 4  # of an epoch


class Cost(NamedTuple):
    """What an epoch cost, by image, and how quick it was; ``again`` from the cache."""

    images_per_second: float
    requests_per_second: float
    requests: float
    kilobytes: float
    again: float


def report_storage(options: Namespace, world: Processes) -> None:
    """Measure both orders at each latency, and print a table.

    What is measured is reading alone: planned batches and their bytes, as DALI takes them.
    """
    splits = open_images(options.data, options.images, world)
    if len(splits[0]) < options.batch * WINDOWS:
        raise BadInput(
            f"{len(splits[0])} images are no {WINDOWS} batches of {options.batch}: lower --batch, "
            "or raise --images"
        )
    costs: dict[tuple[str, int], list[Cost]] = {}
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder, "packed")
        pack(splits, packed, Encoding(None, QUALITY), SHARD_BYTES, 1)
        for _ in range(options.rounds):
            for latency in LATENCIES:
                for shuffle in ("global", "window"):
                    cost = measure(packed, shuffle, latency, options.batch)
                    costs.setdefault((shuffle, latency), []).append(cost)
    mean = splits[0].file_bytes.mean() / 1000
    print(f"{machine()}; {len(splits[0]):,} images, mean {mean:.0f} KB; one process, which reads")
    print(
        f"{'order':8} {'latency ms':>10} {'images/s':>9} {'requests/s':>11} "
        f"{'requests/image':>15} {'KB/image':>9} {'again images/s':>15}"
    )
    medians = {}
    for (shuffle, latency), found in costs.items():
        cost = Cost(*map(statistics.median, zip(*found, strict=True)))
        medians[f"{shuffle} {latency} ms"] = cost._asdict()
        print(
            f"{shuffle:8} {latency:10} {cost.images_per_second:9.0f} "
            f"{cost.requests_per_second:11.1f} {cost.requests:15.3f} {cost.kilobytes:9.1f} "
            f"{cost.again:15.0f}"
        )
    write_json(options.json, {"images": len(splits[0]), "mean_kilobytes": mean, "orders": medians})


def measure(packed: Path, shuffle: str, latency: float, batch: int) -> Cost:
    """Read an epoch of the packed set from a server, with an empty cache, and once more."""
    with tempfile.TemporaryDirectory() as cache, _served(packed, latency / 1000) as (url, counts):
        settings = Settings(
            recipe="benchmark", workers=1, batch_per_worker=batch, data=url, cache=Path(cache),
            shuffle=shuffle,
        )  # fmt: skip
        window = len(open_splits(packed)[0]) // WINDOWS  # before: it says how far is read ahead
        settings = settings.model_copy(update={"shuffle_window": window})
        train, val = open_alone(settings)
        plan = Plan(train, val, settings, [range(1)], 0, 1)
        steps = len(train) // batch
        before = counts()
        first = _seconds(plan, steps)
        requests, sent = (now - then for now, then in zip(counts(), before, strict=True))
        again = _seconds(plan, steps)
        images = steps * batch
    return Cost(
        images / first, requests / first, requests / images, sent / images / 1000, images / again
    )


def _seconds(plan: Plan, steps: int) -> float:
    """Return how long it takes to read so many batches, from the planning to the bytes."""
    feed = Feed(
        plan.train,
        plan.bad_train,
        places=lambda: plan.training_places(0, steps),
        plan=lambda place: plan.training_batch(*place),
        group=1,
        on_gpu=False,
    )
    began = time.perf_counter()
    for _ in feed:
        feed.delivered()
    return time.perf_counter() - began


@contextmanager
def _served(folder: Path, latency: float) -> Iterator:
    """Serve a folder in a process of its own; give its URL and a function for its counts."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(folder, latency, theirs), daemon=True)
    process.start()

    def counts() -> tuple[int, int]:
        ours.send(None)
        return ours.recv()

    try:
        yield ours.recv(), counts
    finally:
        process.terminate()
        process.join()


def _serve(folder: Path, latency: float, pipe: Connection) -> None:
    with RangeServer(folder, latency) as server:
        pipe.send(server.url)
        while True:
            pipe.recv()
            with server.counting:
                pipe.send((server.requests, server.sent))
