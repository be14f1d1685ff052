"""What measuring costs: the marks of a step, and what a logged window adds.

``python -m benchmarks.stopwatch``, or by a launcher on several ranks: the demo's step with and
without its marks, taking turns; then the cost alone, in tight loops, which a busy machine disturbs
less; and what of it falls on a step.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.harness.results import check_files
from dali_pipeline.benchmarking.measure import interleaved, machine, ratios, write_json
from dali_pipeline.dataset.index import synthetic_index
from dali_pipeline.loading.loader import make_loader
from dali_pipeline.sampling.plan import Plan
from hvd_utils.cli.argument_types import positive
from hvd_utils.cli.run_main import run_main
from hvd_utils.config.settings import Settings
from hvd_utils.faults.heartbeat import COMPUTING, FINISHING, READING, WAITING
from hvd_utils.horovod_backend.flags import SharedFlags
from hvd_utils.horovod_backend.world import World, start_world
from hvd_utils.nn.batch_norm import normalise_by_worker
from hvd_utils.nn.compile import tune_model
from hvd_utils.nn.models import build_model
from hvd_utils.paper.logical_workers import passes, share
from hvd_utils.run.run_log import RunLog
from hvd_utils.timing.step_timer import StepTimer
from hvd_utils.timing.step_times import StepTimes, make_step_times
from hvd_utils.timing.stragglers import Stragglers
from hvd_utils.training.loops import no_heartbeat, train
from hvd_utils.training.metrics import Window
from hvd_utils.training.train_state import TrainState

LOG_EVERY = 20  # steps of a window, as by default
MARKS = (READING, COMPUTING, WAITING, COMPUTING, FINISHING)  # of a step of one pass


def steps_of_the_demo(world: World, steps: int, timer: StepTimer | None) -> Callable[[], None]:
    """Return a function that makes steps of the demo's size, measured by ``timer`` if there is one.

    ``steps`` is a multiple of a window's.
    """
    size = {"model": "resnet8", "resolution": 24, "val_resize": 24, "batch_per_worker": 32}
    settings = Settings(recipe="benchmark", loader="synthetic", workers=world.size, **size)
    parts = passes(share(world.size, world.rank, world.size), 1)
    index = synthetic_index(10_000, 10)
    plan = Plan(index, index, settings, parts, world.rank, world.size)
    loader = make_loader("synthetic", plan, device=world.device, threads=1)
    model = build_model("resnet8", 10, zero_gamma=True, seed=1).to(world.device)
    normalise_by_worker(model, parts, 32)
    tune_model(model, settings, world.device)
    state = TrainState.build(model, settings, len(parts))

    def heartbeat(step: int, doing: str) -> None:
        timer.switch_to(doing)

    def run() -> None:
        made = train(
            state,
            lambda step: 0.01,
            loader.training(0, steps),
            range(steps),
            recipe=settings,
            passes=parts,
            world=world,
            flags=SharedFlags(world.size),
            heartbeat=heartbeat if timer else no_heartbeat,
        )
        for step, totals in enumerate(made, start=1):
            totals.tolist()
            if timer:
                timer.count_step()
                if step % LOG_EVERY == 0:
                    timer.receive(step)
                if (step + 1) % LOG_EVERY == 0:
                    timer.send()

    return run


def seconds_of_marks(timer: StepTimer, steps: int) -> float:
    """Return the seconds that a step's marks take."""
    began = time.perf_counter()
    for _ in range(steps):
        for doing in MARKS:
            timer.switch_to(doing)
        timer.count_step()
    return (time.perf_counter() - began) / steps


def seconds_of_exchange(timer: StepTimer, windows: int) -> float:
    """Return the seconds that a window's exchange holds this rank up, in a step of 10 ms."""
    marks = []
    for window in range(windows):
        timer.count_step()
        began = time.perf_counter()
        timer.send()
        sent = time.perf_counter()
        time.sleep(0.01)
        pace_began = time.perf_counter()
        timer.receive(window)
        marks.append(time.perf_counter() - pace_began + sent - began)
    return statistics.median(marks)


def seconds_of_reckoning(ranks: int) -> float:
    """Return the seconds that rank 0 needs to make a window's timings of so many ranks."""
    slow = Stragglers(["host"] * ranks, [1] * ranks)
    seconds = np.random.default_rng(1).uniform(0.1, 0.11, (ranks, 3))
    times = [time.perf_counter()]
    for window in range(200):
        slow.update(window, LOG_EVERY, seconds)
        make_step_times(seconds, None)
        times.append(time.perf_counter())
    return statistics.median(b - a for a, b in pairwise(times))


def seconds_of_logging(timings: StepTimes | None) -> float:
    """Return the seconds that rank 0 needs to log a window, TensorBoard included."""
    with tempfile.TemporaryDirectory() as folder:
        log = RunLog(Path(folder), step=0, total_steps=1000, epochs=1)
        log.print_line = lambda text: None
        times = [time.perf_counter()]
        for step in range(300):
            log.step(Window(step, 1, 1.0, 1.0, 0.1, 1.0, 1.0, timings), 0)
            times.append(time.perf_counter())
        log.close()
    return statistics.median(b - a for a, b in pairwise(times))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stopwatch", description=__doc__)
    parser.add_argument(
        "--windows", type=positive, default=5, help="of 20 steps, in one measurement"
    )
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    check_files(options)

    world = start_world(options.device)
    steps = options.windows * LOG_EVERY
    candidates = {
        "without": steps_of_the_demo(world, steps, None),
        "with": steps_of_the_demo(world, steps, StepTimer(world, world.size)),
    }
    seconds = interleaved(candidates, options.rounds)
    step = {name: statistics.median(values) / steps for name, values in seconds.items()}
    timer = StepTimer(world, world.size)
    exchange = seconds_of_exchange(timer, 50)
    if not world.is_root:
        return
    timings = make_step_times(np.full((world.size, 3), 0.01), None)
    costs = {
        "marks, a step": (seconds_of_marks(timer, 10_000), 1),
        "exchange, a window": (exchange, LOG_EVERY),
        "reckoning of 256 ranks, a window": (seconds_of_reckoning(256), LOG_EVERY),
        "logging, a window": (seconds_of_logging(timings) - seconds_of_logging(None), LOG_EVERY),
    }
    total = sum(seconds / steps for seconds, steps in costs.values())
    print(f"{machine()}; {world.size} ranks; the demo's step, a window of {LOG_EVERY}")
    for name, value in step.items():
        print(f"a step {name + ' measuring':27} {1e3 * value:9.2f} ms (median)")
    print(f"with by without {ratios(seconds, 'without')['with']:28.3f} (median of the rounds)")
    for name, (value, _) in costs.items():
        print(f"{name:34} {1e6 * value:9.1f} µs")
    share_of_step = total / step["without"]
    print(f"in all, a step {1e6 * total:29.1f} µs = {100 * share_of_step:.2f} % of it")
    costs_in_seconds = {name: value for name, (value, _) in costs.items()}
    figures = {"step_seconds": step, "cost_seconds": costs_in_seconds, "share": share_of_step}
    write_json(options.json, figures)


if __name__ == "__main__":
    run_main(main)
