"""Pictures and their objects in COCO's format, read by torchvision and pycocotools."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import CocoDetection
from torchvision.transforms.functional import pil_to_tensor

from detection.flaws import flaw
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import some

Target = dict[str, torch.Tensor]
LEAST_SIDE = 1.0  # pixels of a box; smaller ones cannot be learned, and a side of 0 is an error


class Coco:
    """One split: ``folder/SPLIT/*`` and ``folder/annotations/instances_SPLIT.json``.

    ``used`` are the places of its pictures in the order of their ids: with ``only_with_objects``
    those that have a box, else all. Labels are 1 to ``len(self.categories)``, in the order of the
    categories' ids; 0 is the background. Raises BadInput naming what is missing.
    """

    def __init__(self, folder: Path, split: str, *, only_with_objects: bool = False) -> None:
        self.file = folder / "annotations" / f"instances_{split}.json"
        self._data = _read(folder / split, self.file)
        self.coco = self._data.coco
        self.categories: dict[int, str] = {
            number: str(self.coco.cats[number].get("name")) for number in sorted(self.coco.cats)
        }
        self._labels = {number: 1 + place for place, number in enumerate(self.categories)}
        self._check(folder / split)
        self.used = [
            place
            for place, number in enumerate(self._data.ids)
            if not only_with_objects or any(map(_is_learned, self.coco.imgToAnns[number]))
        ]

    def __len__(self) -> int:
        return len(self.used)

    def digest(self) -> str:
        """Return a checksum of the file of annotations."""
        return f"sha256:{sha256(self.file.read_bytes()).hexdigest()[:16]}"

    def image_id(self, item: int) -> int:
        """Return COCO's number of a picture."""
        return self._data.ids[self.used[item]]

    def __getitem__(self, item: int) -> tuple[torch.Tensor, Target]:
        """Return a picture, float32 (3, height, width) in 0 to 1, and what is to be found in it.

        Boxes are float32 (objects, 4) as x0, y0, x1, y1 in pixels, labels int64 (objects,), masks
        uint8 (objects, height, width). Crowds are left out. Raises BadInput if it cannot be read.
        """
        listed = self.coco.imgs[self.image_id(item)]
        try:
            image, annotations = self._data[self.used[item]]
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            name = listed["file_name"]
            raise BadInput(f"cannot read {self._data.root}/{name}: {error}") from error
        if (image.height, image.width) != (listed["height"], listed["width"]):
            raise BadInput(
                f"{self._data.root}/{listed['file_name']} has {image.width} x {image.height} "
                f"pixels, but {self.file} lists {listed['width']} x {listed['height']}: mend either"
            )
        learned = [one for one in annotations if _is_learned(one)]
        boxes = torch.tensor([one["bbox"] for one in learned], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        empty = np.zeros((0, image.height, image.width), np.uint8)
        target = {
            "boxes": boxes,
            "labels": torch.tensor([self._labels[one["category_id"]] for one in learned]).long(),
            "masks": torch.from_numpy(np.stack([*map(self._mask, learned)]) if learned else empty),
        }
        return pil_to_tensor(image) / 255, target

    def _mask(self, one: Mapping[str, Any]) -> np.ndarray:
        try:
            return self.coco.annToMask(one)
        except ValueError as error:
            raise BadInput(
                f"object {one['id']} of {self.file} has a mask that cannot be read: {error}"
            ) from error

    def _check(self, folder: Path) -> None:
        """Raise BadInput where pictures are absent, or an object cannot be learned and judged."""
        there = set(os.listdir(folder))
        images = self.coco.imgs
        listed = [str(image.get("file_name")) for image in images.values()]
        absent = [name for name in listed if name not in there]
        if absent:
            raise BadInput(
                f"{len(absent)} of {len(listed)} pictures that {self.file} lists are not in "
                f"{folder}: {some(absent)}; fetch them, or give another --data"
            )
        for number, image in images.items():
            if not all(isinstance(image.get(side), int) for side in ("height", "width")):
                raise BadInput(f"picture {number} of {self.file} has no height or no width")
        if not self.coco.anns:
            raise BadInput(f"{self.file} has no annotations: give another --data")
        parts = (("images", images), ("annotations", self.coco.anns), ("categories", self._labels))
        for name, by_id in parts:
            if len(by_id) != len(self.coco.dataset[name]):
                raise BadInput(f"{self.file} has {name} of the same id: number each of its own")
        for number, one in self.coco.anns.items():
            if found := flaw(one, images, self._labels):
                raise BadInput(f"object {number} of {self.file} {found}: mend it")
        if not any(map(_is_learned, self.coco.anns.values())):
            raise BadInput(f"{self.file} has no objects but crowds: give another --data")


def _is_learned(annotation: Mapping[str, Any]) -> bool:
    return not annotation.get("iscrowd") and min(annotation["bbox"][2:]) >= LEAST_SIDE


def _read(folder: Path, file: Path) -> CocoDetection:
    for path in (folder, file):
        if not path.exists():
            raise BadInput(
                f"no {path}: --data takes a folder with train2017/, val2017/ and "
                "annotations/instances_*2017.json, as COCO's or that of examples/made_up_coco.py"
            )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it tells that it reads
            return CocoDetection(folder, file)
    except ImportError as error:
        raise BadInput(
            f"COCO's format needs pycocotools ({error}): pip install pycocotools, or this "
            "project's extra detection"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise BadInput(f"{file} is not in COCO's format ({error!r}): give another") from error
