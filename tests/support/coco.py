"""A small made-up data set in COCO's format, and the options of a run small enough for tests."""

from __future__ import annotations

import json
from pathlib import Path

from made_up_coco import write_split

from support.launching import REPOSITORY

EXAMPLE = str(REPOSITORY / "examples/mask_rcnn.py")
TINY = (
    *("--small", "--model", "resnet18", "--min-size", "64", "--rois", "8", "--width", "8"),
    *("--images", "30", "--warmup-images", "6", "--log-every", "1"),
)


def write_coco(folder: Path, train: int = 20, val: int = 3) -> Path:
    write_split(folder, "train2017", train, seed=1)
    write_split(folder, "val2017", val, seed=2)
    return folder


def change(folder: Path, split: str, **parts: object) -> None:
    """Replace parts of a split's annotations."""
    path = folder / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


def listed(folder: Path, part: str = "annotations") -> list[dict]:
    """Return the objects of the validation split, or its ``images``."""
    path = folder / "annotations/instances_val2017.json"
    return json.loads(path.read_text())[part]


def change_first_object(folder: Path, **parts: object) -> None:
    """Replace parts of the validation split's first object."""
    first, *rest = listed(folder)
    change(folder, "val2017", annotations=[first | parts, *rest])
