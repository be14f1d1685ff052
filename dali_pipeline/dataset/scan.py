"""From folders to an index: ``DATA/train/CLASS/IMAGE.jpg``, as torchvision's ImageFolder."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dali_pipeline.dataset.index import Index
from hvd_utils.cli.errors import BadInput

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}  # torchvision's
)

MAKE_VAL = ": move some images of each class from train/CLASS/ to val/CLASS/"
UNFINISHED = ".stage/unfinished"  # a file in a data folder whose staging is not finished


def scan(root: Path) -> Index:
    """Index a folder of class folders, as torchvision's ImageFolder reads one: in sorted order.

    Folders within a class folder belong to the class. Raises BadInput where there is no class
    folder or a class has no image.
    """
    found = dict(images_by_class(root))
    names = np.array([name for images in found.values() for name in images], dtype=bytes)
    labels = np.repeat(np.arange(len(found), dtype=np.int32), [*map(len, found.values())])
    return Index(str(root), tuple(found), names, labels)


def images_by_class(root: Path) -> Iterator[tuple[str, list[bytes]]]:
    """Yield each class with the names of its images below ``root``, one class in memory at a time.

    The order and the errors are those of ``scan``.
    """
    try:
        status = os.stat(root)
        classes = sorted(entry.name for entry in os.scandir(root) if _is_folder(entry))
    except OSError as error:
        raise BadInput(f"cannot read data folder {root}: {error.strerror}") from error
    if not classes:
        raise BadInput(f"no class folders in {root}: expected {root}/CLASS/IMAGE.jpg")
    above = frozenset({(status.st_dev, status.st_ino)})
    for name in classes:
        files = [
            os.fsencode(f"{folder}/{file}")
            for folder, images in sorted(walk(root, name, is_image, above))
            for file in sorted(images)
        ]
        if not files:
            raise BadInput(f"class folder {root / name} has no images: fill it or remove it")
        yield name, files


def walk(
    root: Path,
    name: str,
    chosen: Callable[[os.DirEntry], bool],
    above: frozenset[tuple[int, int]] = frozenset(),
) -> Iterator[tuple[str, list[str]]]:
    """Yield a folder below ``root``, and each within it, with the names of its ``chosen`` files.

    Links are followed, but not back to a folder ``above``. Raises BadInput where a folder cannot be
    read, which ``Path.rglob`` passes over.
    """
    try:
        status = os.stat(root / name)
        entries = list(os.scandir(root / name))
    except OSError as error:
        raise BadInput(f"cannot read data folder {root / name}: {error.strerror}") from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    yield name, [entry.name for entry in entries if chosen(entry)]
    for entry in entries:
        if _is_folder(entry):
            yield from walk(root, os.path.join(name, entry.name), chosen, above | {here})


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # a link to itself
        raise BadInput(f"cannot read data folder {entry.path}: {error.strerror}") from error


def is_image(entry: os.DirEntry) -> bool:
    """Whether this is a file with an image's name; a link that leads nowhere is a bad image."""
    if os.path.splitext(entry.name)[1].lower() not in EXTENSIONS:
        return False
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:
        return True


def check_splits(data: Path) -> None:
    """Raise BadInput unless ``data`` is a folder with ``train/`` and ``val/``, staged whole.

    Looks no further.
    """
    state = _why_no_folder(data)
    if state:
        raise BadInput(f"data folder {data} {state}: set --data or IMAGENET_DIR")
    if is_unfinished(data):
        raise BadInput(
            f"data folder {data} is not whole: start python -m dali_pipeline.stage again, which "
            "goes on, or wait until it is done"
        )
    for split in ("train", "val"):
        if state := _why_no_folder(data / split):
            unread = f", or it {state}" if state.startswith("cannot") else ""
            remedy = MAKE_VAL if split == "val" and not unread else ""
            raise BadInput(
                f"data folder {data} has no {split}/{unread}: it needs train/ and val/{remedy}"
            )


def _why_no_folder(path: Path) -> str:
    """Return why there is no folder that can be looked at; empty where there is one."""
    try:
        return "" if stat.S_ISDIR(os.stat(path).st_mode) else "is no folder"
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def is_unfinished(data: Path) -> bool:
    """Whether the staging of a folder has not finished; raises BadInput where that is unknown."""
    try:
        os.stat(data / UNFINISHED)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise BadInput(f"cannot read {data / UNFINISHED}: {error.strerror}") from error
    return True


def scan_splits(data: Path, scan: Callable[[Path], Index] = scan) -> tuple[Index, Index]:
    """Index ``data/train`` and ``data/val``, whose classes must be some of training's.

    Raises BadInput with what is missing or different.
    """
    check_splits(data)
    train, val = scan(data / "train"), scan(data / "val")
    check_classes(train, val)
    return train, val


def check_classes(train: Index, val: Index) -> None:
    """Raise BadInput naming the first class that is validated but not trained.

    Training may have more classes (ImageNet-5k, section 5.3).
    """
    extra = sorted(set(val.classes) - set(train.classes))
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise BadInput(
            f"class {extra[0]}{more} is in {val.root} but not in {train.root}: every class that is "
            "validated has to be trained"
        )
