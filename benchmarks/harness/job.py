"""``train_imagenet.py`` as it is, as a measured process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.harness.processes import REPOSITORY, python
from benchmarks.harness.steady import Mark, Span, job_marks

ENTRY = REPOSITORY / "train_imagenet.py"
RECIPE = "paper"


def job_flags(
    model: str, resolution: int, batch: int, span: Span, *others: object, data: Path | None = None
) -> list[object]:
    """Return the job's arguments: images of ``data``, or none, as many steps as ``span`` has."""
    images = ["--data", data] if data else ["--loader", "synthetic"]
    return [
        *("--recipe", RECIPE, "--model", model, "--batch-per-worker", batch),
        *("--resolution", resolution, "--val-resize", resolution, *images),
        *("--max-steps", span.last, "--log-every", span.window, *others),
    ]


def measure_job(
    run: Callable[[list[object]], object], flags: Sequence[object], span: Span
) -> list[Mark]:
    """Return the marks of one job, started by ``run`` with the arguments that it is given."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        run([*flags, "--output", output])
        return job_marks(output, span)


def plain(flags: Sequence[object]) -> list[str]:
    """Return the command of a job of one process."""
    return python(ENTRY, *flags)


def one_core_each(ranks: int, *program: object, by: str = "horovod") -> list[object]:
    """Return the command that starts ``program`` on ``ranks`` ranks with one core each.

    ``by`` is horovod or torchrun.
    """
    if by == "torchrun":
        launcher = python("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", ranks)
        return [*launcher, "-m", "benchmarks.harness.one_core", *program]
    return ["horovodrun", "-np", ranks, *python("-m", "benchmarks.harness.one_core", *program)]
