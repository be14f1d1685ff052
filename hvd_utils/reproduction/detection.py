"""Table 3: the runs of Mask R-CNN, which ``examples/mask_rcnn.py`` makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hvd_utils.paper.results import PRINTED

GPUS = 8  # of each run of Table 3a, 2 images a GPU
# Table 3b begins from a ResNet-50 that He et al. 2016 published; this is torchvision's.
PUBLISHED = "torchvision/resnet50.IMAGENET1K_V1"


def detection_command(gpus: int, init: str, seed: int | str = "SEED", data: str = "COCO") -> str:
    """Return the command of a run; steps and rate follow from its processes, one a GPU."""
    return (
        f"horovodrun -np {gpus} python examples/mask_rcnn.py --data {data} --init {init} "
        f"--seed {seed}"
    )


def detection_lines() -> Iterator[str]:
    """Yield a line for each row of Table 3: box and mask AP of the paper, and the command."""
    yield "Mask R-CNN on COCO, average precision in percent; the planner does not know its hours"
    yield f"{'':10} {'kn':>6} {'GPUs':>5}  {'box AP':10}  {'mask AP':10}"
    for row in PRINTED["transfer"]:
        init = f"RUN-{row['minibatch']}"
        yield _line(row, row["minibatch"], GPUS, detection_command(GPUS, init))
    for row in PRINTED["detection"]:
        run = detection_command(row["gpus"], PUBLISHED)
        yield _line(row, row["minibatch"], row["gpus"], run)
    yield (
        "kn is that of COCO in Table 3b, and in 3a that of ImageNet: RUN-256 is a run above of kn "
        "256, or what hvd_utils.export makes of it"
    )


def _line(row: Mapping[str, Any], minibatch: int, gpus: int, run: str) -> str:
    box, mask = (
        f"{row[kind]} ± {row[f'{kind}_std']}" if f"{kind}_std" in row else f"{row[kind]}"
        for kind in ("box", "mask")
    )
    return f"{row['source']:10} {minibatch:>6,} {gpus:>5}  {box:10}  {mask:10}  {run}"
