"""A measured step, from a benchmark's JSON or a run's folder; or a curve of steps over GPUs.

``python -m hvd_utils.scaling.measured RUN [RUN ...] --json FILE`` gathers runs on different numbers
of GPUs in one file, as ``slurm/scaling.sh`` has them (Figures 7 and 8).
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.parser import Parser
from hvd_utils.cli.run_main import run_main
from hvd_utils.inspect.run_state import launches, read_state
from hvd_utils.scaling.predict import BACKWARD_SHARE, Step
from hvd_utils.scaling.stragglers import spread_of

NEEDED = ("seconds_per_step", "images_per_step")
SECTIONS = ("planner", "figures")  # of a benchmark's JSON, where the keys are looked for
WINDOWS = 20  # the last ones of a run


OF_A_RUN = {"start": ("time", "processes", "minibatch"), "step": ("images_per_second",)}


def read_step(path: Path) -> Step:
    """Return the step from a run's folder or a benchmark's JSON; raise BadInput without one."""
    return _of_run(path) if path.is_dir() else _of_json(path)


def _of_json(path: Path) -> Step:
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise BadInput(f"cannot read --step {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"--step {path} is not JSON: {error}") from error
    places = [values] if isinstance(values, Mapping) else []
    places += [values[name] for name in SECTIONS if places and name in values]
    for place in reversed(places):
        if isinstance(place, Mapping) and all(key in place for key in NEEDED):
            return _step(path, place)
    raise BadInput(
        f"--step {path} is not of a benchmark of ours: it needs {' and '.join(NEEDED)}, "
        f"at its top or in {' or '.join(SECTIONS)}"
    )


def _step(path: Path, values: Mapping[str, Any]) -> Step:
    step = Step(
        seconds=_number(path, values, "seconds_per_step"),
        images=round(_number(path, values, "images_per_step")),
        backward_share=_number(path, values, "backward_share", BACKWARD_SHARE),
        fixed_seconds=_number(path, values, "fixed_seconds", 0.0),
        gpus=round(_number(path, values, "gpus", 1)),
        model=_model(path, values),
        spread=_number(path, values, "spread", math.nan) if "spread" in values else None,
        source=str(path),
    )
    return check(step)


def _model(path: Path, values: Mapping[str, Any]) -> str:
    model = values.get("model", Step.model)
    if not isinstance(model, str):
        raise BadInput(f"--step {path}: model is {model!r}, which is no name")
    return model


def _number(path: Path, values: Mapping[str, Any], key: str, default: float = 0.0) -> float:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"--step {path}: {key} is {value!r}, which is no number")
    if key != "spread" and not -1e300 < value < 1e300:  # NaN is neither
        raise BadInput(f"--step {path}: {key} is {value}, which cannot be")
    return float(value)


def check(step: Step) -> Step:
    """Return the step; raise BadInput naming the figure that cannot be."""
    found = {
        "seconds of a step": (step.seconds, 0 < step.seconds < math.inf),
        "images of a step": (step.images, step.images >= 1),
        "backward share": (step.backward_share, 0 < step.backward_share <= 1),
        "fixed seconds": (step.fixed_seconds, 0 <= step.fixed_seconds < step.seconds),
        "number of GPUs": (step.gpus, step.gpus >= 1),
        "spread": (step.spread, step.spread is None or 0 <= step.spread < 1),
    }
    for name, (value, fits) in found.items():
        if not fits:
            raise BadInput(f"the {name} cannot be {value} ({step.source}): mend the figure")
    return step


def _of_run(folder: Path) -> Step:
    run = read_state(folder, time.time(), OF_A_RUN)
    windows = [event for event in run.steps[-WINDOWS:] if not event.get("partial")]
    if not windows:
        raise BadInput(f"--step {folder}: this run has logged no step yet; let it go on a while")
    ranks, minibatch = run.launch["processes"], run.launch["minibatch"]
    timed = [event["compute_seconds"] for event in windows if "compute_seconds" in event]
    if not all(isinstance(part, list) and len(part) == 3 for part in timed):
        raise BadInput(f"--step {folder}: metrics.jsonl has compute_seconds that are no times")
    if timed:
        # Each rank's own computing; what it waited for others or images is not in it.
        median, most = (statistics.median(window[i] for window in timed) for i in (1, 2))
        seconds, gpus, spread = median, 1, spread_of(median, most, ranks)
    else:
        rate = statistics.median(event["images_per_second"] for event in windows)
        seconds, gpus, spread = minibatch / rate, ranks, None
    model = run.settings.get("model", Step.model)
    images = max(1, minibatch // ranks)
    return check(
        Step(seconds, images, gpus=gpus, model=model, spread=spread, source=f"run {folder}")
    )


SYNTHETIC = "synthetic"  # of a point's input; else images are read, "data"


@dataclass(frozen=True)
class Measured:
    """The step of so many GPUs, from the median of a run's windows without each launch's first."""

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
    windows = []
    for launch in launches(run.events):
        if launch[0]["processes"] == run.launch["processes"]:
            # The first one has the start in it.
            windows += [event for event in launch if event["event"] == "step"][1:]
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
    parser = Parser(prog="python -m hvd_utils.scaling.measured", description=__doc__)
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
