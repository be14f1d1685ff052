"""Compare the number of classes and images with ImageNet's."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from dali_pipeline.dataset.index import Index
from dali_pipeline.dataset.mapped import pieces
from dali_pipeline.dataset.open_data import IMAGENET_CLASSES, IMAGENET_TRAIN, IMAGENET_VAL
from dali_pipeline.preparation.devkit import Devkit

WNID = re.compile(r"n\d{8}")

# Images of a class, fewest and most; the development kit has the count of each class.
TRAIN_RANGE, VAL_RANGE = (732, 1300), (50, 50)


def differences(train: Index, val: Index, devkit: Devkit | None) -> list[str]:
    """Return one line for each way in which the counts are not ImageNet's.

    None where the data set is another one: its classes are not 1,000, nor named by wnids.
    """
    wnids = all(WNID.fullmatch(name) for name in train.classes)
    if not wnids and len(train.classes) != IMAGENET_CLASSES:
        return []
    lines = []
    if len(train.classes) != IMAGENET_CLASSES:
        lines.append(f"{len(train.classes):,} classes, ImageNet has {IMAGENET_CLASSES:,}")
    for split, index, total, bounds, exact in (
        ("train", train, IMAGENET_TRAIN, TRAIN_RANGE, devkit and devkit.train_counts),
        ("val", val, IMAGENET_VAL, VAL_RANGE, devkit and devkit.val_counts),
    ):
        if len(index) != total:
            lines.append(f"{split}: {len(index):,} images, ImageNet has {total:,}")
        counts = count_classes(pieces(index.labels), len(index.classes))
        for name, count in zip(index.classes, counts.tolist(), strict=True):
            least, most = (exact[name],) * 2 if exact and name in exact else bounds
            if not least <= count <= most:
                expected = f"{least:,}" if least == most else f"{least:,} to {most:,}"
                lines.append(f"{split}: class {name} has {count:,} images, ImageNet's {expected}")
        absent = sorted(set(exact or ()) - set(index.classes))
        lines += [f"{split}: class {name} is missing" for name in absent]
    return lines


def count_classes(labels: Iterable[np.ndarray], classes: int) -> np.ndarray:
    """Return how many images each class has, int64 (classes,), of labels that come in parts."""
    counts = np.zeros(classes, np.int64)
    for part in labels:
        counts += np.bincount(part, minlength=classes)
    return counts
