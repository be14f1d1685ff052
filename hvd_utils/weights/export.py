"""Write a run's weights for other programs: ``python -m hvd_utils.export RUN --to FORMAT``.

The averaged weights where the run keeps them, with classes, mean, std, recipe and error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.imports import quick_imports
from hvd_utils.cli.parser import Parser

ENDINGS = {"torchvision": ".pth", "safetensors": ".safetensors", "onnx": ".onnx"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the file and name it."""
    parser = Parser(prog="python -m hvd_utils.export", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or a checkpoint")
    parser.add_argument("--to", required=True, choices=ENDINGS, help="format of the file")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default: in RUN, or beside the checkpoint"
    )
    options = parser.parse_args(arguments)

    with quick_imports():
        from hvd_utils.weights.formats import write
        from hvd_utils.weights.trained import read_trained

    trained = read_trained(options.run)
    output = options.output or default_output(options.run, trained.recipe.model, options.to)
    if output.exists() and output.samefile(trained.path):
        raise BadInput(f"--output {output} is the checkpoint itself: name another file")
    if options.to == "torchvision" and output.suffix == ".json":
        raise BadInput(f"--output {output} is where classes and recipe go: name a .pth file")
    write(trained, options.to, output)
    which = "averaged weights" if trained.averaged else "weights"
    error = trained.progress.top1_errors[-1:]
    told = f", top-1 error {error[0]:.2f} %" if error else ""
    print(f"{output}: {which} of {trained.path}, step {trained.progress.step}{told}")


def default_output(source: Path, model: str, form: str) -> Path:
    """Return where the file lands without --output."""
    if source.is_dir():
        return source / (model.replace("/", "-") + ENDINGS[form])
    return source.with_suffix(ENDINGS[form])
