"""Extract ImageNet's tar files into class folders, in one pass.

A class is written below ``work`` and moved to its place once it is whole, so that an interrupted
extraction continues where it stopped. Only plain files with flat names are written.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dali_pipeline.preparation.devkit import Devkit
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.progress_bar import tqdm

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
CLASS_TAR = re.compile(r"(n\d{8})\.tar")
VAL_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


def extract_train(path: Path, train: Path, work: Path) -> None:
    """Write the images of a tar of class tars to ``train``/CLASS; classes there already stay.

    Each class tar is read through the outer one. Raises BadInput if one is damaged or unsafe.
    """
    train.mkdir(parents=True, exist_ok=True)
    with _progress(path) as bar, _opened(path) as outer:
        for member in outer:
            named = CLASS_TAR.fullmatch(member.name)
            if not (named and member.isreg()):
                raise _unsafe(member, path, "tars named after a class, as n01440764.tar")
            name = named[1]
            if not (train / name).exists():
                partial = work / name
                partial.mkdir(parents=True, exist_ok=True)
                with tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner:
                    for image in inner:
                        _extract(inner, image, partial / image.name, f"{path}, {member.name}")
                partial.rename(train / name)
            bar.update(member.size)


def extract_val(path: Path, val: Path, work: Path, devkit: Devkit) -> None:
    """Write the flat images of a tar to ``val``/CLASS by the development kit.

    Raises BadInput if the tar is damaged or unsafe, or has not all images.
    """
    for name in set(devkit.val_classes):
        (work / name).mkdir(parents=True, exist_ok=True)
    with _progress(path) as bar, _opened(path) as tar:
        for member in tar:
            _extract(tar, member, work / class_of(member.name, devkit) / member.name, str(path))
            bar.update(member.size)
        images = len(tar.getmembers())
    if images != len(devkit.val_classes):
        raise BadInput(
            f"{path} has {images:,} images, the development kit names "
            f"{len(devkit.val_classes):,}: fetch the tar again"
        )
    val.parent.mkdir(parents=True, exist_ok=True)
    work.rename(val)  # also over an empty folder


def class_of(name: str, devkit: Devkit) -> str:
    """Return the class of a flat validation image by its file's name.

    Raises BadInput if the name is not one of ImageNet's.
    """
    named = VAL_IMAGE.fullmatch(name)
    if not named or not 1 <= int(named[1]) <= len(devkit.val_classes):
        raise BadInput(
            f"{name} is not the name of an ImageNet validation image, as "
            "ILSVRC2012_val_00000001.JPEG: remove it, or sort val/ into class folders"
        )
    return devkit.val_classes[int(named[1]) - 1]


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, where: str) -> None:
    """Write one image, unless an interrupted extraction already did."""
    if not member.isreg() or member.name in ("", ".", "..") or "/" in member.name:
        raise _unsafe(member, where, "plain files without folders")
    if path.is_file() and path.stat().st_size == member.size:
        return
    with path.open("wb") as file:
        shutil.copyfileobj(tar.extractfile(member), file)


def _unsafe(member: tarfile.TarInfo, where: object, expected: str) -> BadInput:
    return BadInput(f"refusing {member.name!r} of {where}: expected {expected}; fetch it again")


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar; raise BadInput naming it wherever its reading fails."""
    try:
        with tarfile.open(path, "r:") as tar:
            yield tar
    except tarfile.TarError as error:
        raise BadInput(f"{path} is damaged or incomplete ({error}): fetch it again") from error


def _progress(path: Path) -> tqdm:
    size = os.path.getsize(path)
    return tqdm(total=size, unit="B", unit_scale=True, desc=f"extracting {path.name}", disable=None)
