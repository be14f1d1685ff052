"""Which of the paper's settings some runs are of, and which runs are missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hvd_utils.inspect.final import Result, read_result
from hvd_utils.inspect.outcome import Outcome, read_outcome
from hvd_utils.paper.results import SEEDS, Row, distinct_rows, find_row

PROCESSES = 256  # most of a command, one a GPU; the rest is accumulated, as in footnote 5


@dataclass(frozen=True)
class Collected:
    """The finished runs of each setting, by the row's arguments; and why runs were left out."""

    outcomes: Mapping[str, Outcome]
    left_out: Sequence[str]

    def of(self, row: Row) -> Outcome | None:
        """Return what the runs of a row's setting came to; None without any."""
        return self.outcomes.get(row.arguments)


def collect(folders: Sequence[Path]) -> Collected:
    """Read runs and find the paper's setting of each. Raises BadInput naming what is no run."""
    runs: dict[str, dict[int, Path]] = {}
    left_out = []
    for folder in dict.fromkeys(folders):
        result = read_result(folder)
        row = find_row(result.experiment, result.val_images)
        seed = result.experiment["seed"]
        if why := _why_left_out(result, row):
            left_out.append(f"{folder}: {why}")
        elif seed in runs.get(row.arguments, {}):
            left_out.append(f"{folder}: the seed of {runs[row.arguments][seed]}, {seed}, once more")
        else:
            runs.setdefault(row.arguments, {})[seed] = folder
    return Collected({name: read_outcome(found) for name, found in runs.items()}, left_out)


def _why_left_out(result: Result, row: Row | None) -> str | None:
    done, epochs = len(result.top1_errors), result.experiment["epochs"]
    if not result.finished:
        return f"{done} of {epochs} epochs are done; start it again with its --output"
    return "no setting of the paper, or not validated on ImageNet" if row is None else None


def command(row: Row, seed: int | str = "SEED", data: str = "DIR") -> str:
    """Return the command of a run of this row."""
    return (
        f"horovodrun -np {min(row.workers, PROCESSES)} python train_imagenet.py "
        f"{row.arguments} --data {data} --seed {seed}"
    )


def missing(collected: Collected) -> Iterator[str]:
    """Yield a line for each setting with fewer than five runs: the seeds and the command."""
    for row in distinct_rows():
        outcome = collected.of(row)
        done = set(outcome.errors) if outcome else set()
        others = [seed for seed in range(1, 2 * SEEDS + 1) if seed not in done]
        seeds = ", ".join(map(str, others[: max(0, SEEDS - len(done))]))
        if seeds:
            yield f"{row.reference.source}, seeds {seeds}: {command(row)}"
