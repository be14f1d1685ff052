"""Classify pictures by a trained run: ``python -m hvd_utils.predict RUN IMAGE [IMAGE ...]``.

Pictures are resized and cropped as the run validates them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hvd_utils.cli.argument_types import positive
from hvd_utils.cli.imports import quick_imports
from hvd_utils.cli.parser import Parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Print each picture's likeliest classes."""
    parser = Parser(prog="python -m hvd_utils.predict", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or a checkpoint")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="file of a picture")
    parser.add_argument("--top", type=positive, default=5, help="classes of each (default: 5)")
    options = parser.parse_args(arguments)

    with quick_imports():
        import torch

        from hvd_utils.weights.pictures import class_names, pictures
        from hvd_utils.weights.trained import read_trained

    trained = read_trained(options.run)
    model, names = trained.model(), class_names(trained.classes)
    for path, picture in zip(options.images, pictures(options.images, trained.recipe), strict=True):
        with torch.inference_mode():
            likely = model(picture).softmax(dim=1)[0].topk(min(options.top, len(names)))
        print(path)
        for share, label in zip(*map(torch.Tensor.tolist, likely), strict=True):
            print(f"{100 * share:8.2f} %  {names[label]}")
