"""All runs of the paper: what each costs, by the planner, and what it should come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hvd_utils.paper.results import PRINTED, SEEDS, STEP_SECONDS, Row, distinct_rows
from hvd_utils.reproduction.collected import command
from hvd_utils.reproduction.detection import detection_lines
from hvd_utils.scaling.calibration import interval
from hvd_utils.scaling.gradients import gradients_of
from hvd_utils.scaling.options import read_options
from hvd_utils.scaling.predict import Cluster, Prediction, Step, of_one_gpu, predict

EPOCHS = 90
# Of a step of ResNet-101 by that of ResNet-50, both on the paper's 256 GPUs.
RESNET101 = PRINTED["timing_resnet101"][0]["seconds"] / STEP_SECONDS[256]


def show_plan(most_gpus: int, planner: Sequence[str]) -> None:
    """Print a line for each setting, Mask R-CNN's last.

    ``planner`` are options of ``hvd_utils.scaling``.
    """
    options = read_options(["--algorithm", "hierarchical", *planner])
    cluster = next(iter(options.clusters.values()))
    print(f"{'':10} {'kn':>6} {'GPUs':>5} {'hours':>6} {'GPU hours':>9}  {'top-1 error %':13}")
    total = least = most = 0.0
    for row in distinct_rows():
        run = predict_run(row, options.step, cluster, most_gpus)
        hours = run.hours(EPOCHS)
        total += SEEDS * hours * run.gpus
        low, high = hours_between(run)
        least, most = least + SEEDS * low * run.gpus, most + SEEDS * high * run.gpus
        print(
            f"{row.reference.source:10} {row.minibatch:>6,} {run.gpus:>5} {hours:>6.1f} "
            f"{hours * run.gpus:>9,.0f}  {row.reference!s:13}  {command(row)}"
        )
    print(
        f"\n{len(distinct_rows())} settings of {SEEDS} seeds: {total:,.0f} GPU hours "
        f"({least:,.0f} to {most:,.0f}) by the planner, on {cluster.network.name}, "
        f"step of {options.step.source}; validation is left out. "
        "Errors are the paper's, mean ± standard deviation of 5 runs.\n"
    )
    print("\n".join(detection_lines()))


def predict_run(row: Row, step: Step, cluster: Cluster, most_gpus: int) -> Prediction:
    """Return the step of a row's run on as many GPUs as it has workers, or ``most_gpus``.

    A GPU that carries several workers takes their images one after the other.
    """
    if row.settings.get("model") == "resnet101":
        step = replace(step.scaled(RESNET101), model="resnet101")
    gradients = gradients_of(step.model)
    gpus = min(row.workers, most_gpus)
    one = of_one_gpu(step, gradients, cluster).with_images(-(-row.minibatch // gpus))
    # Gradients travel behind the last pass alone, and what nodes lose they lose once a step.
    share = gpus / row.workers
    one = replace(one, backward_share=one.backward_share * share)
    cluster = replace(cluster, between_nodes=cluster.between_nodes * share)
    return predict(one, gradients, cluster, gpus)


def hours_between(run: Prediction) -> tuple[float, float]:
    """Return the hours of a run at both ends of its efficiency's interval."""
    efficiency = run.compute / run.seconds
    low, high = interval(efficiency) if run.nodes else (efficiency, efficiency)
    return run.hours(EPOCHS) * efficiency / high, run.hours(EPOCHS) * efficiency / low
