"""One GPU's speed at the paper's n and at a large batch: ``python -m benchmarks.gpu``.

ResNet-50 through the job's own loop, unattended, in a few minutes: n = 32 with 8 logical workers
fused in a pass, and n = 256; bf16, fp16 and tf32; with torch.compile and without; made-up images on
the device, and JPEGs through DALI. Each case is a process of its own: one that crashes is told, and
the others are measured. ``--json FILE`` is written after each of them. It holds everything, and
what the scaling planner needs: ``python -m hvd_utils.scaling --step FILE``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from benchmarks.harness.gpu_cases import Case, cases, planner, ratios
from benchmarks.harness.processes import Failed, finish, python
from benchmarks.harness.results import check_files
from hvd_utils.cli.argument_types import above_zero
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.parser import Parser
from hvd_utils.cli.run_main import run_main
from hvd_utils.config.recipe import MinibatchSettings

# The least that is aimed at, on one H200.
TARGETS = {"bf16_images_per_second": 4500, "jpegs_vs_made_up": 0.95, "fused_vs_whole": 0.95}

PRECISIONS = get_args(MinibatchSettings.model_fields["precision"].annotation)
NO_TIME = "no time was left (--minutes)"


def main() -> None:
    """Measure what fits in the time, print a table, and leave one JSON."""
    options = _options()
    from dali_pipeline.benchmarking.measure import machine

    _require_device(options.device)
    found = cases(
        options.batch_per_worker, options.workers, options.precisions, options.compiled,
        jpegs=options.jpegs, ways=options.device == "cuda",
    )  # fmt: skip
    found = [case for case in found if options.only in case.name]
    if not found:
        raise BadInput(f"--only {options.only}: no case has that in its name")
    print(f"{machine()}; {options.model} at {options.resolution} pixels", flush=True)
    print(f"{'':36} images/s  ms a step  of peak  memory  data  compute  SM clock  power")
    with tempfile.TemporaryDirectory() as scratch:
        measure(found, options, Path(scratch), lambda: _write(options, found))
    done = [case for case in found if case.seconds]
    if not done:
        reasons = "; ".join(dict.fromkeys(case.why_not for case in found))
        raise BadInput(f"nothing was measured: {reasons}")
    for name, value in ratios(done).items():
        print(f"{name:28} {value:9.3f}{_target(name, value)}")
    if options.plot:
        _plot(options.plot, done, machine())
    crashed = [case for case in found if case.why_not not in ("", NO_TIME)]
    if crashed:
        print(f"{len(crashed)} of {len(found)} cases failed; the figures of the others stand")
        sys.exit(1)


def measure(
    found: Sequence[Case],
    options: argparse.Namespace,
    scratch: Path,
    keep: Callable[[], None] = lambda: None,
) -> None:
    """Measure one case after the other, each in a process; ``keep`` what there is after each.

    A case that was not measured is left with a reason.
    """
    deadline = time.monotonic() + 60 * options.minutes
    data: Path | None = None
    for case in found:
        left = deadline - time.monotonic()
        if left > 0 and case.loader == "dali" and data is None:
            data = _jpegs(options, scratch)
            left = deadline - time.monotonic()
        if left <= 0:
            case.why_not = NO_TIME
        else:
            _measure_one(case, options, data, min(left, 60 * options.case_minutes), left)
        print(_row(case), flush=True)
        keep()


def _measure_one(
    case: Case, options: argparse.Namespace, data: Path | None, limit: float, left: float
) -> None:
    sides = dict.fromkeys(("resolution", "val_resize"), options.resolution)
    spec = {
        "settings": {"model": options.model, **sides, **case.settings()},
        "device": options.device,
        "data": str(data) if case.loader == "dali" else None,
        "steps": options.steps,
        "rounds": options.rounds,
    }
    try:
        output = finish(
            python("-m", "benchmarks.harness.gpu_case", json.dumps(spec)), timeout=limit
        )
        lines = [line for line in output.splitlines() if line.startswith('{"seconds"')]
        measured = json.loads(lines[-1])
        case.seconds, case.facts = measured["seconds"], measured["facts"]
    except Failed as failed:
        out_of_time = failed.timed_out and limit == left
        case.why_not = NO_TIME if out_of_time else failed.last_line
    except (IndexError, ValueError):
        case.why_not = "it printed no figures"


def _write(options: argparse.Namespace, found: Sequence[Case]) -> None:
    """Write what is known so far."""
    from dali_pipeline.benchmarking.measure import write_json

    done = [case for case in found if case.seconds]
    write_json(
        options.json,
        {
            "figures": ratios(done) if done else {},
            "cases": {
                case.name: {"images_per_second": case.rate, "seconds": case.seconds, **case.facts}
                for case in done
            },
            "left_out": {
                case.name: case.why_not or "not yet measured" for case in found if not case.seconds
            },
            "planner": planner(done, options.model),
        },
    )


def _row(case: Case) -> str:
    if not case.seconds:
        return f"{case.name:36} not measured: {case.why_not}"
    facts = case.facts
    part = f"{100 * facts['of_peak']:5.1f} %" if facts["of_peak"] else "      –"
    memory = f"{facts['memory'] / 1e9:4.1f} GB" if facts["memory"] else "      –"
    data, compute = (f"{100 * facts['split'][name]:4.0f} %" for name in ("data", "compute"))
    clock = f"{facts['sm_mhz']:5.0f} MHz  {facts['watts']:4.0f} W" if "sm_mhz" in facts else ""
    milliseconds = 1000 * statistics.median(case.seconds)
    row = (
        f"{case.name:36} {case.rate:8,.0f} {milliseconds:10.1f}  {part} {memory} {data}  {compute}"
        f"  {clock}"
    )
    if facts.get("cudagraph_skips"):
        row += f"  {facts['cudagraph_skips']} CUDA graphs were given up"
    return row.rstrip()


def _target(name: str, value: float) -> str:
    aim = TARGETS.get(name)
    if aim is None:
        return ""
    return f"   target on an H200 {aim:g}: {'met' if value >= aim else 'missed'}"


def _require_device(device: str) -> None:
    """Raise BadInput where there is no such device, once and not for each case."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput("no CUDA device here: see nvidia-smi, or set --device cpu --quick")


def _jpegs(options: argparse.Namespace, scratch: Path) -> Path:
    """Return a folder of JPEGs: the one that was given, or one made up."""
    from dali_pipeline.benchmarking.jpegs import make_jpegs

    if options.data:
        return options.data
    make_jpegs(scratch, options.images, len(os.sched_getaffinity(0)))
    return scratch


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
    parser = Parser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--resolution", type=int, default=224, help="pixels")
    parser.add_argument("--batch-per-worker", type=int, default=32, help="n, images")
    parser.add_argument("--workers", type=int, default=8, help="k, fused in one pass")
    parser.add_argument(
        "--precisions", type=_listed, default=["bf16", "fp16", "tf32"], metavar="P,P"
    )
    parser.add_argument(
        "--compiled", type=_listed, default=["default", "cudagraphs"], metavar="MODE,MODE"
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help='cases with this in their names, as "JPEGs"'
    )
    parser.add_argument("--data", type=Path, help="JPEGs in class folders; none: made up")
    parser.add_argument("--images", type=int, default=2048, help="JPEGs to make up")
    parser.add_argument("--steps", type=int, default=30, help="in one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=above_zero, default=8, help="for all of it")
    parser.add_argument("--case-minutes", type=above_zero, default=3, help="for one case at most")
    parser.add_argument(
        "--jpegs", action=argparse.BooleanOptionalAction, default=True, help="cases with JPEGs too"
    )
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
