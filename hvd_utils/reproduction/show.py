"""All figures and tables of the paper beside some runs, and what is missing of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hvd_utils.cli.errors import BadInput
from hvd_utils.paper.results import SEEDS, STEP_SECONDS, distinct_rows
from hvd_utils.reproduction import figures, tables
from hvd_utils.reproduction.collected import collect, missing
from hvd_utils.scaling.gradients import gradients_of
from hvd_utils.scaling.measured import Measured, read_curve
from hvd_utils.scaling.plot import plot
from hvd_utils.scaling.predict import of_one_gpu, predict
from hvd_utils.scaling.published import PAPER_CLUSTER, PAPER_STEP


def show_figures(folders: Sequence[Path], out: Path, measured: Path | None = None) -> None:
    """Print the tables and what is missing; write both and the figures below ``out``."""
    collected = collect(folders)
    points = read_curve(measured) if measured else []
    wanted = SEEDS * len(distinct_rows())
    found = sum(len(outcome.errors) for outcome in collected.outcomes.values())
    lines = list(tables.markdown(collected))
    lines += [f"left out: {line}" for line in collected.left_out]
    lines.append(f"{found} runs of the {wanted} of the paper are there.")
    absent = list(missing(collected))
    if not points:
        absent.append("Figures 7 and 8: sbatch --nodes=44 slurm/scaling.sh, then --measured FILE")
    lines += ["", "Missing, and the command of each:", *absent] if absent else []
    pictures = [*figures.draw(collected, out), draw_scaling(out / "figures7-8.png", points)]
    page = out / "tables.md"
    try:
        page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot write {page}: {error.strerror}; set --out elsewhere") from error
    print("\n".join(lines))
    for path in [page, *pictures]:
        print(path)


def draw_scaling(path: Path, points: Sequence[Measured]) -> Path:
    """Draw Figures 7 and 8: the paper's points, the planner's curve for its cluster, and ours."""
    cluster = PAPER_CLUSTER
    gradients = gradients_of(PAPER_STEP.model)
    one = of_one_gpu(PAPER_STEP, gradients, cluster)
    counts = sorted({*STEP_SECONDS, 16, 32, 64, 128, *(point.gpus for point in points)})
    rows = [predict(one, gradients, cluster, gpus) for gpus in counts]
    base = predict(one, gradients, cluster, PAPER_STEP.gpus)
    plot(path, rows, base, f"Figures 7 and 8; predicted for {cluster.network.name}", points)
    return path
