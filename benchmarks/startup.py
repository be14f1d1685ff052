"""Seconds from launch to the first step done, and where they go: ``python -m benchmarks.startup``.

The demo's job, launched by horovodrun and by mpirun in turn. With more ranks than cores most of it
is waiting for a core, so what 32 ranks take here tells of this machine rather than of a cluster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.harness.launching import gently, mpirun
from benchmarks.harness.processes import Failed, finish, python
from benchmarks.harness.results import check_files
from dali_pipeline.benchmarking.measure import machine, write_json
from hvd_utils.cli.argument_types import positive
from hvd_utils.cli.run_main import run_main

LAUNCHERS = ("horovodrun", "mpirun")
PARTS = (
    "launcher",
    "imports",
    "Horovod init",
    "index and data",
    "model",
    "optimizer",
    "loader",
    "broadcast of weights",
    "run's folder",
    "first step",
    "other",
)
LIMIT = 400  # seconds of one launch


def launch_seconds(launcher: str, ranks: int) -> dict[str, float]:
    """Launch the job and return its seconds, in all and by part: medians over the ranks."""
    with TemporaryDirectory(prefix="startup-") as folder:
        options = ("--recipe", "demo", "--max-steps", "1", "--loader-threads", "1")
        start = [*gently(ranks), launcher, "-np", str(ranks)]
        if launcher == "mpirun":
            start = mpirun(ranks)
        job = python(
            "-m", "benchmarks.harness.startup_rank", folder, *options, "--output", f"{folder}/run"
        )
        began = time.time()
        output = finish([*start, *job], timeout=LIMIT)
        files = sorted(Path(folder).glob("*.json"))
        if len(files) != ranks:
            raise Failed(f"the job did not come to its first step: {output[-600:]}")
        found = [json.loads(file.read_text()) for file in files]
    parts = [split(rank, began) for rank in found]
    seconds = {part: statistics.median(rank[part] for rank in parts) for part in PARTS}
    return {"in all": max(rank["done"] for rank in found) - began, **seconds}


def split(rank: dict[str, Any], began: float) -> dict[str, float]:
    """Return a rank's seconds by part."""
    seconds = dict.fromkeys(PARTS, 0.0)
    for part, start, end in rank["marks"]:
        seconds[part] = seconds.get(part, 0.0) + end - start
    first_init = next(start for part, start, _ in rank["marks"] if part == "Horovod init")
    last = max(end for _, _, end in rank["marks"])
    seconds["launcher"] = rank["started"] - began
    seconds["imports"] = first_init - rank["started"] - seconds.pop("settings", 0.0)
    seconds["run's folder"] -= seconds["broadcast of weights"]  # which happens in it
    seconds["first step"] = rank["done"] - last
    seconds["other"] += rank["done"] - began - sum(seconds.values())
    return seconds


def plot(path: Path, found: dict[str, dict[str, float]]) -> None:
    """Draw each launch as a bar of its parts."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 1.5 + 0.6 * len(found)))
    colours = pyplot.get_cmap("tab20").colors
    for name, seconds in found.items():
        left = 0.0
        for part, colour in zip(PARTS, colours, strict=False):
            label = part if name == next(iter(found)) else None
            axes.barh(name, seconds[part], left=left, color=colour, label=label)
            left += seconds[part]
    axes.set_xlabel("seconds from launch to the first step done")
    axes.legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 32])
    parser.add_argument("--rounds", type=positive, default=5, help="launches of each kind")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="2 ranks by horovodrun, once")
    options = parser.parse_args()
    check_files(options)
    launchers = LAUNCHERS[:1] if options.quick else LAUNCHERS
    ranks, rounds = ([2], 1) if options.quick else (options.ranks, options.rounds)

    runs: dict[str, list[dict[str, float]]] = {}
    for count in ranks:
        for _ in range(rounds):
            for launcher in launchers:
                seconds = launch_seconds(launcher, count)
                runs.setdefault(f"{launcher} -np {count}", []).append(seconds)
    found = {
        name: {part: statistics.median(run[part] for run in several) for part in several[0]}
        for name, several in runs.items()
    }
    print(machine())
    print(f"{'seconds to the first step':26}" + "".join(f"{name:>20}" for name in found))
    for part in ("in all", *PARTS):
        print(f"{part:26}" + "".join(f"{found[name][part]:20.2f}" for name in found))
    figures = {f"seconds, {name}": seconds["in all"] for name, seconds in found.items()}
    write_json(options.json, {"figures": figures, "parts": found})
    if options.plot:
        plot(options.plot, found)


if __name__ == "__main__":
    run_main(main)
