"""Read ImageNet's development kit: its classes, and the labels of the validation images."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hvd_utils.cli.errors import BadInput

DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
SYNSETS = "ILSVRC2012_devkit_t12/data/meta.mat"
GROUND_TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"


@dataclass(frozen=True)
class Devkit:
    """``val_classes[i]`` is the class (wnid) of ILSVRC2012_val_{i + 1:08d}.JPEG.

    ``train_counts`` is the number of training images of each class.
    """

    val_classes: tuple[str, ...]
    train_counts: dict[str, int]

    @property
    def val_counts(self) -> dict[str, int]:
        """How many validation images each class has."""
        return dict(Counter(self.val_classes))


def read_devkit(path: Path) -> Devkit:
    """Read the archive of the development kit, which is never unpacked.

    Raises BadInput if it is missing, damaged or something else.
    """
    from scipy.io import loadmat  # slow to import, and seldom needed

    try:
        with tarfile.open(path) as archive:
            synsets = loadmat(io.BytesIO(_member(archive, SYNSETS)), squeeze_me=True)["synsets"]
            lines = _member(archive, GROUND_TRUTH).split()
        # The 1,000 classes are the leaves; their ancestors in WordNet have no images of their own.
        leaves = synsets[synsets["num_children"] == 0]
        wnids = {int(leaf["ILSVRC2012_ID"]): str(leaf["WNID"]) for leaf in leaves}
        counts = {str(leaf["WNID"]): int(leaf["num_train_images"]) for leaf in leaves}
        return Devkit(tuple(wnids[int(line)] for line in lines), counts)
    except FileNotFoundError as error:
        raise BadInput(
            f"no {path}: it says which class each flat validation image has; put ImageNet's "
            "development kit there"
        ) from error
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error}") from error
    except Exception as error:  # SciPy and tarfile have many ways of refusing damage
        raise BadInput(
            f"{path} is damaged or not ImageNet's development kit of 2012 ({error}): fetch it again"
        ) from error


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is not a file")
    return file.read()
