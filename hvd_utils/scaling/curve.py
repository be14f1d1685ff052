"""A measured curve of steps over GPUs, as ``slurm/scaling.sh`` makes it (Figures 7 and 8).

``python -m hvd_utils.scaling.curve RUN [RUN ...] --json FILE`` gathers its runs in one file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.run_main import run_main
from hvd_utils.inspect.run_state import read_state
from hvd_utils.scaling.measured import OF_A_RUN, check
from hvd_utils.scaling.predict import Step

SYNTHETIC = "synthetic"  # of a point's input; else images are read, "data"


@dataclass(frozen=True)
class Measured:
    """The step of so many GPUs, from the median of a run's windows without the first."""

    gpus: int
    images: int  # n of one GPU
    seconds: float
    input: str
    model: str

    @property
    def images_per_second(self) -> float:
        """Of all GPUs."""
        return self.gpus * self.images / self.seconds


def point_of(folder: Path) -> Measured:
    """Return the point of a run; raise BadInput where it has logged too little."""
    run = read_state(folder, time.time(), OF_A_RUN)
    windows = run.steps[1:]  # the first one has the start in it
    if not windows:
        raise BadInput(f"{folder} has fewer than two windows logged: let it make more steps")
    gpus, minibatch = run.launch["processes"], run.launch["minibatch"]
    rate = statistics.median(event["images_per_second"] for event in windows)
    kind = SYNTHETIC if run.settings.get("loader") == SYNTHETIC else "data"
    model = run.settings.get("model", Step.model)
    return Measured(gpus, max(1, minibatch // gpus), minibatch / rate, kind, model)


def read_curve(path: Path) -> list[Measured]:
    """Return the points of a file, by input and GPUs. Raises BadInput where it is not such a file.

    All have to be of one model, with as many images a GPU.
    """
    try:
        values = json.loads(path.read_text())
        points = [Measured(**point) for point in values["points"]]
        for point in points:
            check(Step(point.seconds, point.images, gpus=point.gpus, source=str(path)))
    except OSError as error:
        raise BadInput(f"cannot read --measured {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadInput(f"--measured {path} is not what slurm/scaling.sh writes: {error}") from error
    if not points or len({(point.model, point.images) for point in points}) > 1:
        raise BadInput(f"--measured {path}: its points have to be of one model and one n")
    return sorted(points, key=lambda point: (point.input != SYNTHETIC, point.gpus))


def first_step(points: Sequence[Measured], source: str) -> Step:
    """Return the step on the fewest GPUs, synthetic if there is one: where predictions begin."""
    point = points[0]
    return Step(point.seconds, point.images, gpus=point.gpus, model=point.model, source=source)


def by_input(points: Sequence[Measured]) -> dict[str, list[Measured]]:
    """Return the points of each input, from the fewest GPUs to the most."""
    return {
        kind: [point for point in points if point.input == kind]
        for kind in dict.fromkeys(point.input for point in points)
    }


def efficiency(point: Measured, points: Sequence[Measured]) -> float:
    """Return a point's images/s of a GPU by those at the fewest GPUs with the same input."""
    base = by_input(points)[point.input][0]
    return base.seconds / point.seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the points of the given runs."""
    parser = argparse.ArgumentParser(prog="python -m hvd_utils.scaling.curve", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="to write")
    options = parser.parse_args(arguments)
    points = [point_of(run) for run in options.runs]
    figures: dict[str, Any] = {"points": [asdict(point) for point in points]}
    try:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    except OSError as error:
        raise BadInput(
            f"cannot write {options.json}: {error.strerror}; set --json elsewhere"
        ) from error
    for point in points:
        print(
            f"{point.gpus:>6,} GPUs, {point.input:9}: {1000 * point.seconds:8.1f} ms a step, "
            f"{point.images_per_second:,.0f} images/s"
        )


if __name__ == "__main__":
    run_main(main)
