"""The paper's figure of several runs: ``python -m hvd_utils.final RUN [RUN ...]``.

Each run's error is the median top-1 validation error of its last 5 epochs; runs that differ in
their seed alone are summarised as mean ± standard deviation (section 5.1).
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.parser import Parser
from hvd_utils.config.recipe import Recipe
from hvd_utils.run.event_log import METRICS, read_events, what_is_wrong
from hvd_utils.run.progress import Progress

NEEDED = {"epoch": ("epoch", "val_top1_error", "val_images")}
SETTINGS = "settings.yaml"


@dataclass(frozen=True)
class Result:
    """The result of a run's folder. ``top1_errors`` are in percent, one for each finished epoch."""

    run: Path
    experiment: dict[str, Any]
    top1_errors: list[float]
    val_images: int | None

    @property
    def finished(self) -> bool:
        """Whether every epoch has its validation error."""
        return len(self.top1_errors) == self.experiment["epochs"]

    @property
    def final_error(self) -> float:
        """The run's figure, percent."""
        return Progress(top1_errors=self.top1_errors).final_error()


def read_result(run: Path, events: Iterable[Mapping[str, Any]] | None = None) -> Result:
    """Read a run's folder. Raises BadInput where it has none of a run's files.

    ``events`` are those of its ``metrics.jsonl`` where they have been read already.
    """
    try:
        values = yaml.safe_load((run / SETTINGS).read_text(encoding="utf-8"))
        # Where and how a run was carried out does not count, nor where weights to start from lie.
        values["init"] = values.get("init_checksum") or values.get("init")
        recipe = Recipe.model_validate(
            {"order": "stored", **{k: v for k, v in values.items() if k in Recipe.model_fields}}
        )
    except OSError as error:
        raise BadInput(
            f"{run} is not the folder of a run ({SETTINGS}: {error.strerror}): give its --output"
        ) from error
    except (ValueError, KeyError, RecursionError, AttributeError, yaml.YAMLError) as error:
        raise BadInput(f"{run / SETTINGS} is damaged or of another version: {error}") from error
    epochs = [e for e in events or read_events(run, NEEDED) if e["event"] == "epoch"]
    if any(what_is_wrong(epoch, NEEDED) for epoch in epochs):
        raise BadInput(f"{run / METRICS} has epochs without {', '.join(NEEDED['epoch'])}")
    return Result(
        run,
        recipe.model_dump(mode="json"),
        [event["val_top1_error"] for event in epochs],
        epochs[-1]["val_images"] if epochs else None,
    )


def check_same(results: Sequence[Result]) -> None:
    """Raise BadInput naming what two runs differ in, unless it is their seed alone."""
    first = results[0]
    seeds: dict[int, Path] = {}
    for other in results:
        for name, value in first.experiment.items():
            if name != "seed" and other.experiment[name] != value:
                flag = "--" + name.replace("_", "-")
                raise BadInput(
                    f"{flag} is {value} in {first.run} but {other.experiment[name]} in "
                    f"{other.run}: give runs that differ in their seed alone"
                )
        if other.val_images != first.val_images:
            raise BadInput(
                f"{first.run} was validated on {first.val_images:,} images, {other.run} on "
                f"{other.val_images:,}: give runs on one data set"
            )
        seed = other.experiment["seed"]
        if seed in seeds:
            raise BadInput(
                f"{seeds[seed]} and {other.run} have the same --seed {seed}, so their spread says "
                "nothing: give one of them"
            )
        seeds[seed] = other.run


def by_settings(results: Iterable[Result]) -> list[list[Result]]:
    """Divide results into those that differ in their seed alone, in the order they are given."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        alike = {name: value for name, value in result.experiment.items() if name != "seed"}
        groups.setdefault(json.dumps(alike, sort_keys=True), []).append(result)
    return list(groups.values())


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and sample standard deviation (of n - 1); None of a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Print each run's error and what they are together."""
    parser = Parser(prog="python -m hvd_utils.final", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args(arguments)

    results = [read_result(run) for run in options.runs]
    finished = [result for result in results if result.finished]
    for result in results:
        if result.finished:
            seed = result.experiment["seed"]
            print(f"{result.final_error:6.2f} %  {result.run} (seed {seed})")
        else:
            print(f"left out: {_how_far(result)}")
    if not finished:
        raise BadInput("no run has finished: start each again with its --output, which goes on")
    check_same(finished)
    mean, std = mean_and_std([result.final_error for result in finished])
    spread = "" if std is None else f" ± {std:.2f}"
    last = min(5, finished[0].experiment["epochs"])
    print(
        f"top-1 error {mean:.2f}{spread} % over {len(finished)} run{'s' * (len(finished) > 1)} "
        f"(of each the median of the last {last} epochs)"
    )
    if options.json:
        _write_json(options.json, _figures(results, mean, std))


def _write_json(path: Path, figures: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(figures, indent=2) + "\n")
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}; set --json elsewhere") from error


def _how_far(result: Result) -> str:
    done, epochs = len(result.top1_errors), result.experiment["epochs"]
    return f"{result.run} has finished {done} of {epochs} epochs"


def _figures(results: Sequence[Result], mean: float, std: float | None) -> dict[str, Any]:
    finished = [result for result in results if result.finished]
    experiment = {k: v for k, v in finished[0].experiment.items() if k != "seed"}
    return {
        "mean_top1_error": mean,
        "std_top1_error": std,
        "runs": [
            {"run": str(r.run), "seed": r.experiment["seed"], "top1_error": r.final_error}
            for r in finished
        ],
        "unfinished": [str(r.run) for r in results if not r.finished],
        "experiment": experiment,
    }
