"""Measure the input pipeline alone, and its peers on the same images.

python -m dali_pipeline.benchmark                          stages, pipeline and peers
horovodrun -np 8 python -m dali_pipeline.benchmark         what a node's 8 processes load at once
python -m dali_pipeline.benchmark --index                  what an index of ImageNet's size costs
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from dali_pipeline.benchmarking.options import read_options
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.run_main import run_main

if TYPE_CHECKING:
    from dali_pipeline.benchmarking.bench import Bench
    from hvd_utils.horovod_backend.world import World


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print, from top to bottom."""
    options = read_options(arguments)

    # Imported once the options look good: these take seconds.
    from dali_pipeline.benchmarking.bench import images_per_second
    from dali_pipeline.benchmarking.candidates import CANDIDATES, check_names, open_streams
    from dali_pipeline.benchmarking.index_cost import report_index_cost
    from dali_pipeline.benchmarking.index_growth import report_growth
    from dali_pipeline.benchmarking.measure import machine, taking_turns, write_json
    from dali_pipeline.benchmarking.report import feeds, our_ratios, plot, table
    from hvd_utils.horovod_backend.world import start_world

    if options.index_images:
        report_growth(options.index_images, options.rounds, options.json)
        return
    if options.index:
        report_index_cost(options.rounds, options.json)
        return
    check_names(options.only)
    world = start_world(options.device)
    bench = _bench(options, world)
    if world.is_root:
        print(f"{machine()}; {_describe(bench, world)}")

    # Peers use the whole machine, so they are for one process; several measure the node's sum.
    names = (options.only or CANDIDATES) if world.size == 1 else ["full"]
    streams, skipped = open_streams(names, bench)

    def rate_of_all(name: str) -> float:
        world.sum([0], "benchmark.begin")  # all begin at once
        own = images_per_second(streams[name], bench, options.seconds)
        return float(world.sum([own], "benchmark.rate")[0])

    rates = taking_turns({name: partial(rate_of_all, name) for name in streams}, options.rounds)
    if not world.is_root:
        return
    print(table(streams, rates))
    for name, reason in skipped.items():
        print(f"{name} skipped: {reason}")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    nodes = world.size / world.local_size
    print(feeds(medians["full"] / nodes, options.gpu_rate))
    figures = {"images_per_second": medians, "ratios": our_ratios(rates), "skipped": skipped}
    write_json(options.json, figures)
    if options.plot:
        plot(options.plot, rates, f"{machine()}; batches of {options.batch}")


def _bench(options: Namespace, world: World) -> Bench:
    """Return the images and the plan of one logical worker, another one in each process."""
    from dali_pipeline.benchmarking.bench import Bench
    from dali_pipeline.benchmarking.images import open_images, scratch_folder
    from dali_pipeline.sampling.plan import Plan
    from hvd_utils.config.settings import Settings

    train, val = open_images(options.data, options.images, world)
    if len(train) < options.batch:
        raise BadInput(
            f"{len(train)} images do not fill a batch of {options.batch}: lower --batch, or raise "
            "--images"
        )
    settings = Settings(
        recipe="benchmark", workers=1, batch_per_worker=options.batch, seed=1 + world.rank
    )
    plan = Plan(train, val, settings, [range(1)], 0, 1)
    return Bench(plan, world.device, options.threads or world.cores, scratch_folder(train))


def _describe(bench: Bench, world: World) -> str:
    """Return what is measured, in the words of the table's first line."""
    train = bench.plan.train
    processes = f"{world.size} processes of " if world.size > 1 else ""
    return (
        f"{processes}{bench.threads} threads, batches of {bench.plan.training_size} on "
        f"{bench.device.type}; {len(train):,} images in {train.root}, "
        f"mean {train.file_bytes.mean() / 1000:.0f} KB"
    )


if __name__ == "__main__":
    run_main(main)
