"""Entry point: ``python -m hvd_utils.scaling``."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.run_main import run_main
from hvd_utils.scaling import text
from hvd_utils.scaling.answers import network_for, stops_paying
from hvd_utils.scaling.calibration import interval
from hvd_utils.scaling.gradients import Gradient, gradients_of
from hvd_utils.scaling.options import read_options
from hvd_utils.scaling.predict import Cluster, Prediction, Step, of_one_gpu, predict
from hvd_utils.scaling.published import validate


def main(arguments: Sequence[str] | None = None) -> None:
    """Predict and print, from top to bottom."""
    options = read_options(arguments)
    step, clusters = options.step, options.clusters
    gradients = gradients_of(step.model)
    cluster = next(iter(clusters.values()))
    one = of_one_gpu(step, gradients, cluster)
    unlimited = replace(cluster, input_limit=None, max_minibatch=None)
    base = predict(one, gradients, unlimited, step.gpus)
    rows = [
        predict(one, gradients, each, gpus) for gpus in options.gpus for each in clusters.values()
    ]
    _show(text.describe(step, one, gradients, cluster))
    asked = options.network_for is not None or options.stops_paying is not None or options.validate
    if not asked:  # a question gets its answer alone
        print()
        _show(text.table(rows, base, options.epochs, options.epoch_images))
        if options.points:
            print()
            _show(text.measured_table(options.points, rows))
    figures: dict[str, Any] = {
        "step": asdict(step),
        "network": asdict(cluster.network),
        "predictions": [_figures(row, base, options) for row in rows],
    }
    if options.network_for is not None:
        figures["network_for"] = _network_for(options, one, gradients, cluster)
    if options.stops_paying is not None:
        figures["stops_paying"] = _stops_paying(options, one, gradients, clusters)
    if options.validate:
        figures["validation"] = _validation()
    if options.json:
        _write_json(options.json, figures)
    if options.plot:
        from hvd_utils.scaling.plot import plot

        title = f"{step.model}, n = {step.images}, {cluster.network.name}"
        plot(options.plot, rows, base, title, options.points)


def _network_for(
    options: Namespace, one: Step, gradients: Sequence[Gradient], cluster: Cluster
) -> dict[str, Any]:
    found = network_for(one, gradients, cluster, options.at, options.network_for)
    found = {name: found[name] for name in options.clusters}
    print()
    _show(text.network_answer(found, options.network_for, options.at))
    return {
        name: {"usable_gbit_per_node": gbit, "preset": preset}
        for name, (gbit, preset) in found.items()
    }


def _stops_paying(
    options: Namespace, one: Step, gradients: Sequence[Gradient], clusters: dict[str, Cluster]
) -> dict[str, Any]:
    """Answer twice: with n kept, and with kn kept, which accuracy needs."""
    gain, efficiency = options.stops_paying, options.least_efficiency
    most = options.max_minibatch or text.ACCURATE_MINIBATCH
    answers: dict[str, Any] = {}
    for key, title, limit in (
        ("same_n", f"n = {one.images} kept (from kn = {most:,} on, accuracy falls)", None),
        ("same_kn", f"kn at most {most:,}, so n shrinks", most),
    ):
        print(f"\nIt stops paying, with {title}, at:")
        answers[key] = {}
        for name, cluster in clusters.items():
            limited = replace(cluster, max_minibatch=limit)
            stop = stops_paying(one, gradients, limited, gain, efficiency)
            print(text.paying_answer(name, stop, gain, efficiency))
            answers[key][name] = stop and stop.last.gpus
    if not one.fixed_seconds:
        print(
            "  (A smaller n is taken to lose nothing on the GPU itself: measure two and give "
            "--fixed-seconds.)"
        )
    return answers


def _validation() -> list[dict[str, Any]]:
    validations = validate()
    print()
    _show(text.validation_table(validations))
    return [
        {
            "name": each.point.name,
            "predicted": each.predicted,
            "published": each.point.efficiency,
            "error": each.error,
            "within_interval": each.holds,
            "source": each.point.source,
            "assumed": each.point.assumed,
        }
        for each in validations
    ]


def _figures(row: Prediction, base: Prediction, options: Namespace) -> dict[str, Any]:
    return asdict(row) | {
        "seconds": row.seconds,
        "minibatch": row.minibatch,
        "images_per_second": row.images_per_second,
        "efficiency": row.efficiency(base),
        "efficiency_interval": interval(row.efficiency(base)) if row.nodes else None,
        "hours": row.hours(options.epochs, options.epoch_images),
        "bound": row.bound,
    }


def _show(lines: Any) -> None:
    for line in lines:
        print(line)


def _write_json(path: Path, figures: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(figures, indent=2) + "\n")
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}; set --json elsewhere") from error


if __name__ == "__main__":
    run_main(main)
