"""The index of a data set: path, label and size of every image."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from hvd_utils.cli.errors import BadInput

Image.MAX_IMAGE_PIXELS = None  # a limit against hostile files, which training images are not

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}  # torchvision's
)

CHANGED = "it has changed since its index was made; if the new one is right, prepare the data again"

UNFINISHED = ".stage/unfinished"  # a file in a data folder whose staging is not finished


@dataclass(frozen=True)
class Index:
    """The images of one split, in a fixed order: an image's id is its place here.

    ``names`` are paths below ``root`` as bytes, ``labels`` int32 places in ``classes``.

    A prepared index also has ``heights`` and ``widths``, int32 pixels as stored, and
    ``file_bytes``, int64 lengths of the encoded images; elsewhere these are None. Of a packed set,
    ``shards`` are files below ``root``, and image i begins at byte ``offset[i]`` (int64) of
    ``shards[shard[i]]`` (int32). ``note`` describes how the images differ from the data set's own.
    """

    root: str
    classes: tuple[str, ...]
    names: np.ndarray
    labels: np.ndarray
    heights: np.ndarray | None = None
    widths: np.ndarray | None = None
    file_bytes: np.ndarray | None = None
    shards: tuple[str, ...] = ()
    shard: np.ndarray | None = None
    offset: np.ndarray | None = None
    note: str = ""
    _sizes: dict[int, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def prepared(self) -> bool:
        """Whether this was read from an index file, which holds every image's size."""
        return self.heights is not None

    @property
    def packed(self) -> bool:
        """Whether the images lie in shards, not in files of their own."""
        return bool(self.shards)

    def digest(self) -> str:
        """Return a checksum of what is trained on: classes, names, labels and ``note``.

        It is the same for a data set prepared or not, in files or in shards, wherever it lies.
        """
        checksum = sha256()
        for part in ([os.fsencode(name) for name in self.classes], self.names.tolist()):
            checksum.update(b"\n".join(part) + b"\0")
        checksum.update(self.labels.astype("<i4").tobytes())
        checksum.update(self.note.encode())
        return checksum.hexdigest()

    def path(self, image: int) -> str:
        """Return the file that holds an image: its own, or its shard."""
        if self.packed:
            return os.path.join(self.root, self.shards[self.shard[image]])
        return os.path.join(self.root, os.fsdecode(self.names[image]))

    def whereabouts(self, image: int) -> str:
        """Return where a user finds an image: its file, or its shard and name."""
        path = self.path(image)
        return f"{path}: {os.fsdecode(self.names[image])}" if self.packed else path

    def read(self, image: int) -> bytes:
        """Return the encoded bytes of an image; any thread may ask.

        Raises BadImage if it cannot be read, has another length than in a prepared index, or a
        shard ends before it.
        """
        try:
            if not self.packed:
                with open(self.path(image), "rb") as file:
                    data = file.read()
                if data and self.prepared and len(data) != self.file_bytes[image]:
                    raise bad_image(self, image, CHANGED)
                return data
            length = int(self.file_bytes[image])
            shard = _shard(self.path(image))  # held, so that no other thread's reading closes it
            data = os.pread(shard.fileno(), length, int(self.offset[image]))
            if len(data) < length:
                raise OSError("its shard ends too early")
            return data
        except OSError as error:
            raise bad_image(self, image, error) from error

    def sizes(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return heights and widths in pixels, as stored, int32.

        A prepared index holds them; otherwise the headers of files not yet seen are read.
        Raises BadImage if a header cannot be.
        """
        if self.prepared:
            return self.heights[ids], self.widths[ids]
        for image in ids.tolist():
            if image not in self._sizes:
                self._sizes[image] = self._header_size(image)
        sizes = [self._sizes[image] for image in ids.tolist()]
        heights, widths = np.array(sizes, dtype=np.int32).reshape(-1, 2).T
        return heights, widths

    def _header_size(self, image: int) -> tuple[int, int]:
        try:
            with Image.open(self.path(image)) as header:  # reads no more
                return header.height, header.width
        except (OSError, SyntaxError, ValueError) as error:
            raise bad_image(self, image, error) from error


@lru_cache(maxsize=256)
def _shard(path: str) -> BinaryIO:
    """Open a shard once. Kept outside the index, which is sent to other processes."""
    return open(path, "rb", buffering=0)


class BadImage(BadInput):
    """An image, whose id is ``image``, cannot be read or decoded for the given reason."""

    def __init__(self, where: str, image: int, reason: str) -> None:
        super().__init__(
            f"cannot read image {where}: {reason}; repair or remove the file, or set "
            "--on-bad-image skip"
        )
        self.image = image
        self.reason = reason


def bad_image(index: Index, image: int, reason: Exception | str) -> BadImage:
    """Return the failure that names an image that cannot be read or decoded, and why."""
    if getattr(reason, "errno", None):
        reason = os.strerror(reason.errno)
    elif isinstance(reason, UnidentifiedImageError):
        reason = "not an image"
    return BadImage(index.whereabouts(image), image, str(reason))


def synthetic_index(num_images: int, num_classes: int) -> Index:
    """Return an index of images that are nowhere, for the loader that needs no files."""
    labels = np.arange(num_images, dtype=np.int32) % num_classes
    classes = tuple(str(label) for label in range(num_classes))
    return Index("", classes, np.zeros(num_images, dtype="S1"), labels)


def scan(root: Path) -> Index:
    """Index a folder of class folders, as torchvision's ImageFolder reads one: in sorted order.

    Folders within a class folder belong to the class. Raises BadInput where there is no class
    folder or a class has no image.
    """
    try:
        status = os.stat(root)
        classes = sorted(entry.name for entry in os.scandir(root) if _is_folder(entry))
    except OSError as error:
        raise BadInput(f"cannot read data folder {root}: {error.strerror}") from error
    if not classes:
        raise BadInput(f"no class folders in {root}: expected {root}/CLASS/IMAGE.jpg")
    names: list[bytes] = []
    counts = []
    above = frozenset({(status.st_dev, status.st_ino)})
    for name in classes:
        files = [
            f"{folder}/{file}"
            for folder, images in sorted(_folders(root, name, above))
            for file in sorted(images)
        ]
        if not files:
            raise BadInput(f"class folder {root / name} has no images: fill it or remove it")
        names += map(os.fsencode, files)
        counts.append(len(files))
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), counts)
    return Index(str(root), tuple(classes), np.array(names, dtype=bytes), labels)


def _folders(
    root: Path, name: str, above: frozenset[tuple[int, int]]
) -> Iterator[tuple[str, list[str]]]:
    """Yield a folder below ``root``, and each within it, with the names of its image files.

    Links are followed, but not back to a folder ``above``.
    """
    try:
        status = os.stat(root / name)
        entries = list(os.scandir(root / name))
    except OSError as error:
        raise BadInput(f"cannot read data folder {root / name}: {error.strerror}") from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    yield name, [entry.name for entry in entries if _is_image(entry)]
    for entry in entries:
        if _is_folder(entry):
            yield from _folders(root, f"{name}/{entry.name}", above | {here})


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # a link to itself
        raise BadInput(f"cannot read data folder {entry.path}: {error.strerror}") from error


def _is_image(entry: os.DirEntry) -> bool:
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
    try:
        state = "" if stat.S_ISDIR(os.stat(data).st_mode) else "is no folder"
    except FileNotFoundError:
        state = "does not exist"
    except OSError as error:
        state = f"cannot be read ({error.strerror})"
    if state:
        raise BadInput(f"data folder {data} {state}: set --data or IMAGENET_DIR")
    if (data / UNFINISHED).exists():
        raise BadInput(
            f"data folder {data} is not whole: start python -m dali_pipeline.stage again, which "
            "goes on, or wait until it is done"
        )
    for split in ("train", "val"):
        if not (data / split).is_dir():
            raise BadInput(f"data folder {data} has no {split}/: it needs train/ and val/")


def scan_splits(data: Path) -> tuple[Index, Index]:
    """Index ``data/train`` and ``data/val``, whose class folders must be the same.

    Raises BadInput with what is missing or different.
    """
    check_splits(data)
    train, val = scan(data / "train"), scan(data / "val")
    check_same_classes(train, val)
    return train, val


def check_same_classes(train: Index, val: Index) -> None:
    """Raise BadInput naming the first class that only one of the two has."""
    for ours, theirs in ((train, val), (val, train)):
        extra = sorted(set(ours.classes) - set(theirs.classes))
        if extra:
            more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
            raise BadInput(
                f"class {extra[0]}{more} is in {ours.root} but not in {theirs.root}: "
                "both need the same class folders"
            )
