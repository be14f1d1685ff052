"""Measure the input pipeline alone, and its peers on the same images.

python -m dali_pipeline.benchmark                          stages, pipeline and peers
horovodrun -np 8 python -m dali_pipeline.benchmark         what a node's 8 processes load at once
python -m dali_pipeline.benchmark --index                  what an index of ImageNet's size costs
python -m dali_pipeline.benchmark --storage                what each order costs an object store
python -m dali_pipeline.benchmark --index --index-images 1000000,1000000000    how that grows
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
    from dali_pipeline.benchmarking.candidates import ON_GPU, check_names, names_for, open_streams
    from dali_pipeline.benchmarking.index.cost import report_index_cost
    from dali_pipeline.benchmarking.index.growth import report_growth
    from dali_pipeline.benchmarking.measure import machine, taking_turns, write_json
    from dali_pipeline.benchmarking.report import decoding, feeds, our_ratios, plot, table
    from hvd_utils.horovod_backend.world import start_world

    if options.index_images:
        report_growth(options.index_images, options.rounds, options.json, options.plot)
        return
    if options.index:
        report_index_cost(options.rounds, options.json)
        return
    if options.storage:
        from dali_pipeline.benchmarking.storage_cost import report_storage  # needs obstore

        report_storage(options, start_world("cpu"))
        return
    check_names(options.only)
    world = start_world(options.device)
    cuda = world.device.type == "cuda"
    names = names_for(options.only, world.size, cuda)
    bench = _bench(options, world, [way for way, name in ON_GPU.items() if name in names])
    if world.is_root:
        print(f"{machine()}; {_describe(bench, world)}")

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
    if cuda:
        rates_of_node = {name: rate / nodes for name, rate in medians.items()}
        print(decoding(rates_of_node, options.gpu_rate, bench.failed))
    figures = {"images_per_second": medians, "ratios": our_ratios(rates), "skipped": skipped}
    write_json(options.json, figures)
    if options.plot:
        plot(options.plot, rates, f"{machine()}; batches of {options.batch}")


def _bench(options: Namespace, world: World, on_gpu: Sequence[str]) -> Bench:
    """Return the images and the plan of one logical worker, another one in each process.

    ``on_gpu`` are the ways to decode on a GPU that are to be measured.
    """
    from dali_pipeline.benchmarking.bench import Bench
    from dali_pipeline.benchmarking.images import open_images, scratch_folder
    from dali_pipeline.loading.decoding.choose import probe_nodes
    from dali_pipeline.loading.decoding.verdict import failures
    from dali_pipeline.sampling.plan import Plan
    from hvd_utils.config.settings import Settings

    train, val = open_images(options.data, options.images, world)
    if len(train) < options.batch:
        raise BadInput(
            f"{len(train)} images do not fill a batch of {options.batch}: lower --batch, or raise "
            "--images"
        )
    settings = Settings(
        recipe="benchmark",
        workers=1,
        batch_per_worker=options.batch,
        seed=1 + world.rank,
        loader_threads=options.threads,
    )
    plan = Plan(train, val, settings, [range(1)], 0, 1)
    failed = {}
    if on_gpu and world.device.type == "cuda":  # first in a child process, which may crash
        ways = ("cpu", *on_gpu)
        failed = failures(probe_nodes(ways, settings, (train, val), world, world.device.index))
    threads = options.threads or world.cores
    return Bench(plan, world.device, threads, scratch_folder(train), failed)


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
