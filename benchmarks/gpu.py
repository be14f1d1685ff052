"""One GPU's speed at the paper's n and at a large batch: ``python -m benchmarks.gpu``.

ResNet-50 through the job's own loop, unattended, in a few minutes: n = 32 with 8 logical workers
fused in a pass, and n = 256; bf16 and tf32; with torch.compile and without; made-up images on the
device, and JPEGs through DALI. ``--json FILE`` holds everything, and what the scaling planner
needs: ``python -m hvd_utils.scaling --step FILE``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from benchmarks.harness.gpu_cases import Case, cases, planner, ratios
from benchmarks.harness.results import check_files
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.run_main import run_main
from hvd_utils.config.recipe import MinibatchSettings

# The least that is aimed at, on one H200.
TARGETS = {"bf16_images_per_second": 4500, "jpegs_vs_made_up": 0.95, "fused_vs_whole": 0.9}
WARM = 5  # steps before the clock starts: kernels are chosen, or compiled

PRECISIONS = get_args(MinibatchSettings.model_fields["precision"].annotation)


def main() -> None:
    """Measure what fits in the time, print a table, and leave one JSON."""
    options = _options()
    from benchmarks.harness.card import peak, training_flops
    from dali_pipeline.benchmarking.measure import machine, write_json
    from hvd_utils.horovod_backend.world import start_world

    world = start_world(options.device)
    found = cases(options.batch_per_worker, options.workers, options.precisions, options.compiled)
    print(f"{machine()}; {options.model} at {options.resolution} pixels", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        done = measure(found, options, world, Path(scratch))
    if not done:
        raise BadInput("nothing was measured: raise --minutes")
    flops = training_flops(options.model, 1000, options.resolution)
    print(f"{'':36} images/s  ms a step  of peak  memory  data  compute")
    for case in done:
        limit = peak(world.device, case.precision)
        case.facts["of_peak"] = case.rate * flops / limit if limit else None
        print(_row(case), flush=True)
    for case in found:
        if case not in done:
            print(f"{case.name:36} not measured: no time was left (--minutes)")
    figures = ratios(done)
    for name, value in figures.items():
        print(f"{name:28} {value:9.3f}{_target(name, value)}")
    write_json(
        options.json,
        {
            "figures": figures,
            "cases": {
                case.name: {"images_per_second": case.rate, "seconds": case.seconds, **case.facts}
                for case in done
            },
            "left_out": [case.name for case in found if case not in done],
            "planner": planner(done, options.model),
        },
    )
    if options.plot:
        _plot(options.plot, done, machine())


def measure(
    found: Sequence[Case], options: argparse.Namespace, world: Any, scratch: Path
) -> list[Case]:
    """Measure the cases in turns, round by round; return those that there was time for."""
    import torch

    from benchmarks.harness.loop import Loop

    deadline = time.monotonic() + 60 * options.minutes
    splits, running = None, []
    for case in found:
        if time.monotonic() > deadline - 60 * options.minutes / 4:  # a quarter is for the rounds
            break
        if case.loader == "dali" and splits is None:
            splits = _jpegs(options, scratch, world.cores)
        print(f"starting {case.name}", flush=True)
        loop = Loop(
            _settings(case, options), case.workers, world, splits if case.loader == "dali" else None
        )
        before = _memory(torch, world.device)
        loop.run(WARM)
        case.facts["memory"] = _memory(torch, world.device, most=True) - before
        forward, backward = loop.forward_and_backward(3)
        case.facts["backward_share"] = backward / (forward + backward)
        running.append((case, loop, loop.split()))
    for number in range(options.rounds):
        if number and time.monotonic() > deadline:
            break
        for case, loop, _ in running:
            loop.run(1)  # what was ready before is not counted
            began = time.perf_counter()
            loop.run(options.steps)
            case.seconds.append((time.perf_counter() - began) / options.steps)
    for case, loop, earlier in running:
        spent = {part: now - earlier[part] for part, now in loop.split().items()}
        case.facts["split"] = {part: s / sum(spent.values()) for part, s in spent.items()}
    return [case for case, _, _ in running]


def _row(case: Case) -> str:
    facts = case.facts
    part = f"{100 * facts['of_peak']:5.1f} %" if facts["of_peak"] else "      –"
    memory = f"{facts['memory'] / 1e9:4.1f} GB" if facts["memory"] else "      –"
    data, compute = (f"{100 * facts['split'][name]:4.0f} %" for name in ("data", "compute"))
    milliseconds = 1000 * statistics.median(case.seconds)
    return (
        f"{case.name:36} {case.rate:8,.0f} {milliseconds:10.1f}  {part} {memory} {data}  {compute}"
    )


def _target(name: str, value: float) -> str:
    aim = TARGETS.get(name)
    if aim is None:
        return ""
    return f"   target on an H200 {aim:g}: {'met' if value >= aim else 'missed'}"


def _settings(case: Case, options: argparse.Namespace) -> Any:
    from hvd_utils.config.settings import Settings

    return Settings(
        recipe="benchmark",
        model=options.model,
        resolution=options.resolution,
        val_resize=options.resolution,
        batch_per_worker=case.batch,
        workers=case.workers,
        precision=case.precision,
        compile=case.compile,
        loader=case.loader,
    )


def _jpegs(options: argparse.Namespace, scratch: Path, processes: int) -> tuple:
    from dali_pipeline.benchmarking.jpegs import make_jpegs
    from dali_pipeline.dataset.scan import scan_splits

    if options.data:
        return scan_splits(options.data)
    make_jpegs(scratch, options.images, processes)
    return scan_splits(scratch)


def _memory(torch: Any, device: Any, most: bool = False) -> int:
    """Return the bytes of a GPU that are in use, or the most since this was last asked."""
    if device.type != "cuda":
        return 0
    if most:
        return torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _plot(path: Path, done: Sequence[Case], machine: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.4 * len(done) + 1.2), layout="constrained")
    bars = axes.barh([case.name for case in done], [case.rate for case in done])
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("images/s")
    axes.set_title(machine, fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--resolution", type=int, default=224, help="pixels")
    parser.add_argument("--batch-per-worker", type=int, default=32, help="n, images")
    parser.add_argument("--workers", type=int, default=8, help="k, fused in one pass")
    parser.add_argument("--precisions", type=_listed, default=["bf16", "tf32"], metavar="P,P")
    parser.add_argument(
        "--compiled", type=_listed, default=["default", "cudagraphs"], metavar="MODE,MODE"
    )
    parser.add_argument("--data", type=Path, help="JPEGs in class folders; none: made up")
    parser.add_argument("--images", type=int, default=2048, help="JPEGs to make up")
    parser.add_argument("--steps", type=int, default=30, help="in one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=8, help="for all of it")
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="see that it works; on a CPU too")
    options = parser.parse_args()
    check_files(options)
    unknown = set(options.precisions) - set(PRECISIONS)
    if unknown:
        parser.error(f"--precisions {', '.join(unknown)}: give some of {', '.join(PRECISIONS)}")
    if options.quick:
        options.model, options.resolution, options.batch_per_worker = "resnet8", 32, 4
        options.steps, options.rounds, options.images, options.compiled = 2, 2, 32, []
        if options.device == "cpu":
            options.precisions = ["bf16", "fp32"]
    return options


if __name__ == "__main__":
    run_main(main)
