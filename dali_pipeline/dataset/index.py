"""The index of a data set: path, label and size of every image."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from dali_pipeline.dataset.mapped import MappedFile, pieces
from dali_pipeline.storage.interface import Piece, Storage
from dali_pipeline.storage.local import LOCAL
from hvd_utils.cli.errors import BadInput

Image.MAX_IMAGE_PIXELS = None  # a limit against hostile files, which training images are not

CHANGED = "it has changed since its index was made; if the new one is right, prepare the data again"

AGAIN = "prepare the data again (python -m dali_pipeline.prepare --help)"


class Digest:
    """The checksum of a data set, fed in parts: all of its names, then all of its labels."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._checksum = sha256()
        self._checksum.update(b"\n".join(map(os.fsencode, classes)) + b"\0")
        self._before: bytes | None = b""

    def add_names(self, names: np.ndarray) -> None:
        """Add names, as bytes, in order."""
        if len(names):
            self._checksum.update(self._before + b"\n".join(names.tolist()))
            self._before = b"\n"

    def add_labels(self, labels: np.ndarray) -> None:
        """Add labels, in order."""
        if self._before is not None:
            self._checksum.update(b"\0")  # the names are at their end
            self._before = None
        self._checksum.update(labels.astype("<i4").tobytes())

    def end(self, note: str) -> str:
        """Return the checksum."""
        self._checksum.update(note.encode())
        return self._checksum.hexdigest()


@dataclass(frozen=True)
class Index:
    """The images of one split, in a fixed order: an image's id is its place here.

    ``names`` are paths below ``root`` as bytes, ``labels`` int32 places in ``classes``.

    A prepared index also has ``heights`` and ``widths``, int32 pixels as stored, and
    ``file_bytes``, int64 lengths of the encoded images; elsewhere these are None. Of a packed set,
    ``shards`` are files below ``root``, and image i begins at byte ``offset[i]`` (int64) of
    ``shards[shard[i]]`` (int32), read from ``storage``. ``note`` describes how the images differ
    from the data set's own.

    ``source`` is the file that columns are mapped from. Other processes that an index is sent to
    map it themselves.
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
    storage: Storage = LOCAL
    source: MappedFile | None = field(default=None, repr=False, compare=False)
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

        It is the same for a data set prepared or not, in files or in shards, wherever it lies. An
        index file holds its own.
        """
        if self.source and self.source.digest and self._as_in(self.source):
            return self.source.digest
        digest = Digest(self.classes)
        for part in pieces(self.names):
            digest.add_names(part)
        for part in pieces(self.labels):
            digest.add_labels(part)
        return digest.end(self.note)

    def _as_in(self, source: MappedFile) -> bool:
        """Whether nothing that the digest is of was replaced since it was read."""
        columns = source.columns
        same = self.names is columns["names"] and self.labels is columns["labels"]
        return same and (self.classes, self.note) == source.of

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the columns that another process can map itself."""
        state = dict(self.__dict__)
        if self.source:
            own = [name for name, column in self.source.columns.items() if state[name] is column]
            state |= dict.fromkeys(own)
            state["source"] = replace(self.source, columns=dict.fromkeys(own)) if own else None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map them; raises BadInput where the file is not there or another one."""
        if state["source"]:
            state["source"] = state["source"].remap()
            state |= state["source"].columns
        self.__dict__.update(state)

    def labels_of(self, ids: np.ndarray) -> np.ndarray:
        """Return labels, int64; raise BadInput where the index has one that no class has."""
        labels = self.labels[ids].astype(np.int64)
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(self.classes)):
            raise BadInput(f"the index of {self.root} is damaged (labels out of range): {AGAIN}")
        return labels

    def path(self, image: int) -> str:
        """Return the file that holds an image: its own, or its shard."""
        if self.packed:
            shard = int(self.shard[image])
            if not 0 <= shard < len(self.shards):
                raise BadInput(f"the index of {self.root} is damaged (shard {shard}): {AGAIN}")
            return os.path.join(self.root, self.shards[shard])
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
            piece = self._piece(image)
            data = self.storage.read(piece)
            if len(data) < piece.length:
                raise OSError("its shard ends too early")
            return data
        except OSError as error:
            raise bad_image(self, image, error) from error

    def expect(self, ids: Iterable[int]) -> None:
        """Announce images that will be read soon, in this order."""
        if self.packed:
            self.storage.expect(map(self._piece, ids))  # of which a local one looks at none

    def _piece(self, image: int) -> Piece:
        return Piece(self.path(image), int(self.offset[image]), int(self.file_bytes[image]))

    def sizes(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return heights and widths in pixels, as stored, int32.

        A prepared index holds them; otherwise the headers of files not yet seen are read.
        Raises BadImage if a header cannot be.
        """
        if self.prepared:
            heights, widths = self.heights[ids], self.widths[ids]
            if len(ids) and min(heights.min(), widths.min()) < 1:
                raise BadInput(f"the index of {self.root} is damaged (no pixels): {AGAIN}")
            return heights, widths
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


class BadImage(BadInput):
    """An image, whose id is ``image``, cannot be read or decoded for the given reason."""

    def __init__(self, where: str, image: int, reason: str) -> None:
        super().__init__(
            f"cannot read image {where}: {reason}; repair or remove the file, or set "
            "--on-bad-image skip"
        )
        self.where = where
        self.image = image
        self.reason = reason

    def __reduce__(self) -> tuple:
        """Let another process raise it."""
        return BadImage, (self.where, self.image, self.reason)


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
