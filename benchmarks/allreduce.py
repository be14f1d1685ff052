"""Sums of ResNet-50's gradients: Horovod beside MPI, and how much hides behind backward.

``python -m benchmarks.allreduce`` launches ranks by mpirun, several times. MPI's own sum is one of
a flat buffer of all gradients, in place; MPI in pieces of 4 MB, which stay in cache, is shown too.
Horovod gets the gradients as the job hands them on. Hidden is what a sum alone takes less what it
adds to forward and backward, by what it takes alone: over a slow link between two network
namespaces, which need root, where sums take about 0.8 of backward's time and mostly wait; and in
memory, where a sum is nothing but work for the cores that compute, and cannot hide.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.harness.launching import figures_of, mpirun
from benchmarks.harness.results import check_files
from benchmarks.harness.slow_link import NoLink, slow_link
from dali_pipeline.benchmarking.measure import machine, write_json
from hvd_utils.cli.argument_types import positive
from hvd_utils.cli.parser import Parser
from hvd_utils.cli.run_main import run_main

RANK = "benchmarks.harness.allreduce_rank"
TARGET_MPI, TARGET_HIDDEN = 0.9, 0.8
IN_MEMORY = "in memory"
LIMIT = 240  # seconds of one launch
SHOWN = ("copy", "mpi_flat", "mpi_pieces", "mpi_tensors", "horovod", "horovod_defaults")


def bandwidths(ranks: int, rounds: int, repeats: int) -> dict[str, Any]:
    """Return seconds by candidate, and ratios, at so many ranks; launches take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in SHOWN}
    ratios: dict[str, list[float]] = {"mpi_flat": [], "mpi_pieces": []}
    for _ in range(rounds):
        ours = figures_of(mpirun(ranks), RANK, "bandwidth", "--repeats", repeats, limit=LIMIT)
        plain = figures_of(
            mpirun(ranks), RANK, "bandwidth", "--plain", "--repeats", repeats, limit=LIMIT
        )
        found = ours["seconds"] | {"horovod_defaults": plain["seconds"]["horovod"]}
        for name, value in found.items():
            seconds[name].append(value)
        for name, values in ratios.items():
            values.append(found[name] / found["horovod"])
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    moved = dict.fromkeys(middle, 2 * (ranks - 1) / ranks * ours["bytes"]) | {"copy": ours["bytes"]}
    return {
        "seconds": middle,
        "gbyte_per_second": {name: moved[name] / value / 1e9 for name, value in middle.items()},
        "ratios": {name: statistics.median(values) for name, values in ratios.items()},
    }


def hidden(start: list[str], rounds: int, *options: object) -> dict[str, Any]:
    """Return the share of communication hidden behind backward, and the seconds it is made of."""
    parts = []
    for _ in range(rounds):
        seconds = figures_of(start, RANK, "hidden", *options, limit=LIMIT)["seconds"]
        added = seconds["with"] - seconds["without"]
        parts.append(seconds | {"hidden": 1 - added / seconds["alone"]})
    return {name: statistics.median(part[name] for part in parts) for name in parts[0]}


def over_slow_link(gbit: float, rounds: int, *options: object) -> dict[str, Any] | str:
    """Return the same over a link of ``gbit`` Gbit/s, or why it cannot be made."""
    try:
        with slow_link(gbit) as start:
            return hidden(start, rounds, *options)
    except NoLink as reason:
        return str(reason)


def plot(path: Path, found: dict[int, dict[str, Any]]) -> None:
    """Draw the bandwidths as bars, a group for each number of ranks."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4))
    for place, name in enumerate(SHOWN):
        heights = [found[ranks]["gbyte_per_second"][name] for ranks in found]
        at = [group + 0.14 * place for group in range(len(found))]
        axes.bar(at, heights, width=0.13, label=name.replace("_", " "))
    axes.set_xticks([group + 0.35 for group in range(len(found))], [f"{r} ranks" for r in found])
    axes.set_ylabel("GB/s (sums: bus bandwidth)")
    axes.set_title("ResNet-50's gradients, 102 MB in 161 tensors")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def show(found: dict[int, dict[str, Any]], behind: dict[str, dict[str, Any] | str]) -> None:
    """Print the tables and the targets."""
    print(machine())
    print(f"{'GB/s (sums: bus bandwidth)':28}" + "".join(f"{r:>4} ranks" for r in found))
    for name in SHOWN:
        values = (found[ranks]["gbyte_per_second"][name] for ranks in found)
        print(f"{name.replace('_', ' '):28}" + "".join(f"{value:10.2f}" for value in values))
    for ranks, figures in found.items():
        ratio = figures["ratios"]
        print(
            f"{ranks} ranks: Horovod / MPI, one flat buffer {ratio['mpi_flat']:.2f}, in pieces "
            f"{ratio['mpi_pieces']:.2f}; {_against(ratio['mpi_flat'], TARGET_MPI)}"
        )
    for name, part in behind.items():
        if isinstance(part, str):
            print(f"hidden, {name}: skipped: {part}")
            continue
        aim = "no target" if name == IN_MEMORY else _against(part["hidden"], TARGET_HIDDEN)
        print(
            f"hidden, {name}: {100 * part['hidden']:.0f} %; step {1e3 * part['without']:.0f} ms, "
            f"with sums {1e3 * part['with']:.0f}, sums alone {1e3 * part['alone']:.0f}, of which a "
            f"core works {1e3 * part['communication_cpu']:.0f}; "
            f"{aim}"
        )


def _against(value: float, target: float) -> str:
    return f"target {target}: {'met' if value >= target else 'missed'}"


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = Parser(prog="python -m benchmarks.allreduce", description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--rounds", type=positive, default=3, help="launches of each kind")
    parser.add_argument("--gbit", type=float, default=1, help="of the slow link, Gbit/s")
    parser.add_argument("--images", type=positive, default=48, help="of a step over the slow link")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="2 ranks, once, no slow link")
    options = parser.parse_args()
    check_files(options)
    rounds, repeats = options.rounds, 7
    step: tuple = ()
    if options.quick:
        options.ranks, rounds, repeats, step = [2], 1, 1, ("--images", 2, "--side", 32)

    step = (*step, "--repeats", repeats)
    found = {ranks: bandwidths(ranks, rounds, repeats) for ranks in options.ranks}
    behind: dict[str, Any] = {IN_MEMORY: hidden(mpirun(2), rounds, *step)}
    name = f"a link of {options.gbit:g} Gbit/s"
    if options.quick:
        behind[name] = "not with --quick"
    else:
        step = ("--images", options.images, "--repeats", 5)
        behind[name] = over_slow_link(options.gbit, rounds, *step)
    show(found, behind)
    figures = {f"horovod_vs_mpi_{r}": part["ratios"]["mpi_flat"] for r, part in found.items()}
    for key, part in zip(("hidden_in_memory", "hidden"), behind.values(), strict=True):
        figures[key] = None if isinstance(part, str) else part["hidden"]
    write_json(options.json, {"figures": figures, "ranks": found, "behind_backward": behind})
    if options.plot:
        plot(options.plot, found)


if __name__ == "__main__":
    run_main(main)
