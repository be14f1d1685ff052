"""When does it pay to fuse logical workers in one pass? ``python -m benchmarks.fuse``.

One process carries k workers of n images of noise, through the job's own training loop, with 1, 2,
4 … of them in a pass. The mathematics is the same; the speed is not.
"""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path

from benchmarks.harness.loop import Loop
from benchmarks.harness.results import check_files
from dali_pipeline.benchmarking.measure import interleaved, machine, ratios, write_json
from hvd_utils.cli.argument_types import positive
from hvd_utils.cli.parser import Parser
from hvd_utils.cli.run_main import run_main
from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend.world import start_world
from hvd_utils.paper.logical_workers import default_fuse


def main() -> None:
    """Measure, print a table, and say what the default chooses."""
    parser = Parser(prog="python -m benchmarks.fuse", description=__doc__)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--resolution", type=positive, default=224, help="pixels")
    parser.add_argument("--batch-per-worker", type=positive, default=32, help="n, images")
    parser.add_argument("--workers", type=positive, default=8, help="k on this one process")
    parser.add_argument("--steps", type=positive, default=5, help="in one measurement")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    check_files(options)

    world = start_world(options.device)
    settings = Settings(
        recipe="benchmark",
        loader="synthetic",
        model=options.model,
        resolution=options.resolution,
        val_resize=options.resolution,
        workers=options.workers,
        batch_per_worker=options.batch_per_worker,
    )
    fuses = [2**i for i in range(options.workers.bit_length()) if 2**i <= options.workers]
    loops = {str(fuse): Loop(settings, fuse, world) for fuse in fuses}
    seconds = interleaved(
        {name: partial(loop.run, options.steps) for name, loop in loops.items()}, options.rounds
    )
    images = options.steps * options.workers * options.batch_per_worker
    rates = {name: [images / second for second in values] for name, values in seconds.items()}
    against_one = ratios(rates, "1")
    n = options.batch_per_worker
    default = min(default_fuse(n, world.gpu_memory), options.workers)
    print(f"{machine()}; {options.model} at {options.resolution} pixels, n = {n}, fp32")
    print("workers in a pass   images/s (median)   against 1")
    for name, values in rates.items():
        mark = "   (default)" if int(name) == default else ""
        print(f"{name:>17}   {statistics.median(values):17.1f}   {against_one[name]:9.2f}{mark}")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    write_json(options.json, {"images_per_second": medians, "ratios": against_one})


if __name__ == "__main__":
    run_main(main)
