"""What a data set holds: the path, label and size of every image."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from hvd_utils.failure import BadInput

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}  # torchvision's
)


@dataclass(frozen=True)
class Index:
    """The images of one split, in a fixed order: an image's id is its place here.

    ``names`` are paths below ``root`` as bytes, ``labels`` int32 places in ``classes``.
    """

    root: str
    classes: tuple[str, ...]
    names: np.ndarray
    labels: np.ndarray
    _sizes: dict[int, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.names)

    def path(self, image: int) -> str:
        """Return the file of an image."""
        return os.path.join(self.root, os.fsdecode(self.names[image]))

    def sizes(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return heights and widths in pixels, as stored, reading file headers not yet seen."""
        for image in ids:
            if image not in self._sizes:
                self._sizes[image] = _header_size(self.path(image))
        both = np.array([self._sizes[image] for image in ids], dtype=np.int32).reshape(-1, 2)
        return both[:, 0], both[:, 1]


def _header_size(path: str) -> tuple[int, int]:
    try:
        with Image.open(path) as image:  # reads the header only
            return image.height, image.width
    except OSError as error:
        raise bad_image(path, error) from error


def bad_image(path: str, error: Exception) -> BadInput:
    """Return the failure that names an image that cannot be read or decoded, and why."""
    reason = os.strerror(error.errno) if getattr(error, "errno", None) else str(error)
    return BadInput(f"cannot read image {path}: {reason}; repair or remove the file")


def synthetic_index(num_images: int, num_classes: int) -> Index:
    """Return an index of images that are nowhere, for the loader that needs no files."""
    labels = np.arange(num_images, dtype=np.int32) % num_classes
    classes = tuple(str(label) for label in range(num_classes))
    return Index("", classes, np.zeros(num_images, dtype="S1"), labels)


def scan(root: Path) -> Index:
    """Index a folder of class folders, as torchvision's ImageFolder reads one: in sorted order.

    Raises BadInput where there is no class folder or a class has no image.
    """
    try:
        classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    except OSError as error:
        raise BadInput(f"cannot read data folder {root}: {error.strerror}") from error
    if not classes:
        raise BadInput(f"no class folders in {root}: expected {root}/CLASS/IMAGE.jpg")
    names: list[bytes] = []
    counts = []
    for name in classes:
        files = sorted(
            entry.name
            for entry in os.scandir(root / name)
            if os.path.splitext(entry.name)[1].lower() in EXTENSIONS
        )
        if not files:
            raise BadInput(f"class folder {root / name} has no images: fill it or remove it")
        names += [os.fsencode(f"{name}/{file}") for file in files]
        counts.append(len(files))
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), counts)
    return Index(str(root), tuple(classes), np.array(names, dtype=bytes), labels)


def check_splits(data: Path) -> None:
    """Raise BadInput unless ``data`` is a folder with ``train/`` and ``val/``; looks no further."""
    if not data.is_dir():
        raise BadInput(f"data folder {data} does not exist: set --data or IMAGENET_DIR")
    for split in ("train", "val"):
        if not (data / split).is_dir():
            raise BadInput(f"data folder {data} has no {split}/: it needs train/ and val/")


def scan_splits(data: Path) -> tuple[Index, Index]:
    """Index ``data/train`` and ``data/val``, whose class folders must be the same.

    Raises BadInput with what is missing or different.
    """
    check_splits(data)
    train, val = scan(data / "train"), scan(data / "val")
    for ours, theirs, here, there in (
        (train, val, "train", "val"),
        (val, train, "val", "train"),
    ):
        extra = sorted(set(ours.classes) - set(theirs.classes))
        if extra:
            more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
            raise BadInput(
                f"class {extra[0]}{more} is in {data / here} but not in {data / there}: "
                "both need the same class folders"
            )
    return train, val
