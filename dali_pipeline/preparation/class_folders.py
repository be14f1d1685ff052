"""Arrange a data set of any layout as ``DEST/train/CLASS/`` and ``DEST/val/CLASS/``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dali_pipeline.dataset.scan import EXTENSIONS, MAKE_VAL, is_image, walk
from dali_pipeline.preparation.devkit import DEVKIT, Devkit, read_devkit
from dali_pipeline.preparation.imagenet_tars import (
    TRAIN_TAR,
    VAL_TAR,
    class_of,
    extract_train,
    extract_val,
)
from hvd_utils.cli.errors import BadInput


def check_source(source: Path) -> None:
    """Raise BadInput unless a folder has a tar or a folder for each split."""
    if not source.is_dir():
        raise BadInput(f"folder {source} does not exist: give the folder of the data set")
    for split, tar in (("train", TRAIN_TAR), ("val", VAL_TAR)):
        if not (source / tar).exists() and not (source / split).is_dir():
            raise BadInput(
                f"{source} has neither {tar} nor {split}/ with a folder for each class: put one of "
                f"them there{MAKE_VAL if (source / 'train').is_dir() else ''}"
            )


def arrange_folders(source: Path, dest: Path, work: Path) -> None:
    """Bring ``source`` into class folders of ``dest``; what is there already stays as it is.

    ``source`` has ImageNet's tars, or train/ and val/ in class folders, or val/ flat with the
    development kit beside it, as ``check_source`` saw. Where both are one folder, class folders are
    left alone and flat images moved. ``work`` is a folder of ``dest`` for what is not whole yet.
    Raises BadInput naming what is missing or damaged.
    """
    if (source / TRAIN_TAR).exists():
        extract_train(source / TRAIN_TAR, dest / "train", work / "train")
    else:
        _copy_classes(source / "train", dest / "train", work / "train")

    if (source / VAL_TAR).exists():
        if not _filled(dest / "val"):
            devkit = read_devkit(source / DEVKIT)
            extract_val(source / VAL_TAR, dest / "val", work / "val", devkit)
    else:
        flat = _flat_images(source / "val")
        if flat:
            _sort(source / "val", flat, dest / "val", work, read_devkit(source / DEVKIT))
        else:
            _copy_classes(source / "val", dest / "val", work / "val")
    shutil.rmtree(work, ignore_errors=True)  # empty by now


def link_or_copy(path: Path, to: Path) -> None:
    """Give a file a second name, or copy it where file systems differ or know no hard links.

    A link that leads nowhere stays one.
    """
    try:
        os.link(os.path.realpath(path), to)
    except FileExistsError:
        to.unlink()
        link_or_copy(path, to)
    except OSError:
        shutil.copy2(path, to, follow_symlinks=os.path.exists(path))


def _filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _flat_images(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if Path(entry.name).suffix.lower() in EXTENSIONS and entry.is_file()
        )


def _copy_classes(source: Path, dest: Path, work: Path) -> None:
    """Bring class folders to ``dest``, each under a temporary name until it is whole."""
    if source.resolve() == dest.resolve():
        return
    dest.mkdir(parents=True, exist_ok=True)
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        if not (dest / folder.name).exists():
            partial = work / folder.name
            for inner, files in walk(folder, "", _is_file):
                (partial / inner).mkdir(parents=True, exist_ok=True)
                for file in files:
                    link_or_copy(folder / inner / file, partial / inner / file)
            partial.rename(dest / folder.name)


def _is_file(entry: os.DirEntry) -> bool:
    return entry.is_file() or is_image(entry)


def _sort(source: Path, flat: list[str], dest: Path, work: Path, devkit: Devkit) -> None:
    """Bring flat validation images to ``dest``/CLASS: moved within a folder, else copied."""
    places = {name: dest / class_of(name, devkit) / name for name in flat}  # all, before any moves
    in_place = source.resolve() == dest.resolve()
    work.mkdir(parents=True, exist_ok=True)
    for name, place in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        if in_place:
            os.replace(source / name, place)
        elif not place.exists():
            link_or_copy(source / name, work / name)
            os.replace(work / name, place)
