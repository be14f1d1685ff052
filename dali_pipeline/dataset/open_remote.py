"""Open a data set in an object store: its index is brought to each node's cache once."""

from __future__ import annotations

import contextlib
import os
import tempfile
import zipfile
from dataclasses import replace
from functools import cache
from hashlib import blake2b
from pathlib import Path

from dali_pipeline.dataset.index import AGAIN, Index
from dali_pipeline.dataset.index_file import SPLITS, index_path, load_index
from dali_pipeline.dataset.mapped import CHECKED_BYTES
from dali_pipeline.dataset.scan import check_classes
from dali_pipeline.storage.address import check_address, is_remote
from dali_pipeline.storage.cache import INDEX, Cache, locked
from dali_pipeline.storage.client import Client, Stat
from dali_pipeline.storage.remote import AHEAD, MOST_AHEAD, CacheFolder, RemoteShards
from dali_pipeline.storage.workers import Workers
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import Processes
from hvd_utils.config.data_size import parse_bytes
from hvd_utils.config.settings import Settings

PART = 1 << 23  # bytes of an index that are read by one request
PARTS_AT_ONCE = 8
END = 1 << 14  # bytes at the end of an index, which have the checksums of its columns
OPENING = 20.0  # seconds of patience at most, in which a wrong address is seen


def open_remote(settings: Settings, world: Processes) -> tuple[Index, Index]:
    """Return the training and validation index of shards at a URL; collective.

    Where --data is the URL, one process of each node brings the indexes to the node's cache; else
    they are in that folder. Raises BadInput where there is no data set, or its storage does not
    answer.
    """
    folder = world.broadcast(_folder(settings))  # rank 0's index names its files there
    brings = world.local_rank == 0 and is_remote(settings.data)
    version = _bring(settings, folder) if brings else ""
    versions = world.gather(version)  # all wait until they are there
    if len({*versions} - {""}) > 1:
        raise BadInput(
            f"the index at {settings.data} is not the same for all nodes: it changed just now, or "
            "its servers tell other times or ETags: start again, or give one server's address"
        )
    opened = _open(settings, folder, version, len(versions)) if world.is_root else None
    return world.broadcast(opened)


def open_alone(settings: Settings) -> tuple[Index, Index]:
    """Return the same for this process alone."""
    folder = _folder(settings)
    version = _bring(settings, folder) if is_remote(settings.data) else ""
    return _open(settings, folder, version, 1)


def _folder(settings: Settings) -> Path:
    """Return the cache: the one that is named, or one of this user."""
    default = Path(tempfile.gettempdir()) / f"imagenet-in-1-hour-{os.getuid()}"
    return (settings.cache or default).absolute()


def _bring(settings: Settings, folder: Path) -> str:
    """Bring both indexes to this node's cache, unless they are there; return their version."""
    url = settings.data.rstrip("/")
    client = Client(url, min(OPENING, settings.storage_patience))
    stats = {split: _stat(client, url, split) for split in SPLITS}
    version = _hash((url, stats))
    cache = _in_use(folder, version, parse_bytes(settings.cache_size))
    patient = Client(url, settings.storage_patience)  # a large index takes time
    try:
        with locked(cache.folder / "index.lock"):
            for split, stat in stats.items():
                path = index_path(cache.folder / INDEX, split)
                if not _is_whole(path, stat.size):
                    _fetch(patient, f"{url}/{path.name}", stat.size, cache, path)
                with contextlib.suppress(PermissionError):  # another user's
                    os.utime(path)  # the time of its last use
    except OSError as error:
        raise BadInput(
            f"cannot use --cache {folder}: {error.filename or cache.folder}: {error.strerror}; "
            "make room there, or give another folder on the node's disk"
        ) from error
    return version


def _is_whole(path: Path, size: int) -> bool:
    """Whether an index is in the cache as it was brought; of a large one, by its length."""
    try:
        if path.stat().st_size != size:
            return False
        with zipfile.ZipFile(path) as archive:
            return size > CHECKED_BYTES or archive.testzip() is None
    except Exception:  # zipfile has a dozen ways of refusing damage
        return False


@cache
def _in_use(folder: Path, version: str, limit: int) -> Cache:
    """Open a cache, and keep it in use until this process ends."""
    return Cache(folder, version, limit, replaces=False)


def _stat(client: Client, url: str, split: str) -> Stat:
    """Look at an index. Where its server tells neither time nor ETag, its end is the ETag."""
    name = index_path(Path(), split).name
    try:
        stat = client.stat(f"{url}/{name}")
        if stat.tag is None and not stat.mtime_ns:
            end = client.fetch(f"{url}/{name}", max(0, stat.size - END), min(END, stat.size))
            stat = stat._replace(tag=blake2b(end).hexdigest())
        return stat
    except FileNotFoundError as error:
        raise BadInput(
            f"no {name} at {url}: check --data; it needs shards with their index beside train/ and "
            "val/, as python -m dali_pipeline.prepare FOLDER --pack PACKED writes them"
        ) from error


def _fetch(client: Client, url: str, size: int, cache: Cache, path: Path) -> None:
    """Bring an index, in parts, to ``path``: whole and with the right checksums, or not at all."""
    if not cache.claim(size):
        raise BadInput(
            f"{url} has {size:,} bytes, for which --cache has no room: raise --cache-size, or name "
            "a --cache (without one: TMPDIR) on a disk with more space"
        )
    temporary = cache.partial_path()

    def bring(offset: int) -> None:
        part: bytes | memoryview = b""
        with contextlib.suppress(FileNotFoundError):
            part = client.fetch(url, offset, min(PART, size - offset))
        if len(part) < min(PART, size - offset):
            raise BadInput(f"{url} changed while it was read: start again")
        os.pwrite(file.fileno(), part, offset)

    try:
        path.parent.mkdir(exist_ok=True)
        with temporary.open("wb") as file:
            workers = Workers(PARTS_AT_ONCE)
            for part in [workers.submit(bring, offset) for offset in range(0, size, PART)]:
                part.result()
            os.fsync(file.fileno())  # else its name may survive a power cut, and its bytes not
        with zipfile.ZipFile(temporary) as archive:
            if archive.testzip():
                raise zipfile.BadZipFile("its checksum is wrong")
        os.replace(temporary, path)
    except zipfile.BadZipFile as error:
        raise BadInput(f"index {url} is damaged or not an index ({error}): {AGAIN}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _open(settings: Settings, folder: Path, version: str, processes: int) -> tuple[Index, Index]:
    """Return the indexes: those that were brought as ``version``, or else those in --data."""
    own = Path(settings.data).expanduser().absolute()
    indexes = folder / version / INDEX if version else own
    loaded = {split: load_index(index_path(indexes, split), Path(split)) for split in SPLITS}
    if not version:
        version = _hash([(index.root, index.source.checksums) for index in loaded.values()])
    url = settings.data.rstrip("/")
    cache = CacheFolder(str(folder), version, parse_bytes(settings.cache_size))
    for split, index in loaded.items():
        if not index.packed:
            raise BadInput(
                f"{url} has no shards but single images, which are not read from there: pack them "
                "(python -m dali_pipeline.prepare FOLDER --pack PACKED) and put PACKED there"
            )
        of, root = url, f"{url}/{split}"
        if is_remote(index.root):  # the tars of others lie elsewhere than their index
            of = root = index.root
            check_address(of, f"{url} names tars at")
        storage = RemoteShards(of, cache, patience=settings.storage_patience)
        if split == "train" and settings.shuffle == "window":
            ahead = min(max(AHEAD, settings.shuffle_window // processes), MOST_AHEAD)
            storage = replace(storage, blocks=True, ahead=ahead)
        loaded[split] = replace(index, root=root, storage=storage)
        _check_shards(loaded[split], Client(of, OPENING))
    train, val = loaded.values()
    check_classes(train, val)
    return train, val


def _hash(value: object) -> str:
    return blake2b(repr(value).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _check_shards(index: Index, client: Client) -> None:
    """Raise BadInput unless the first and the last shard are there, as long as the index says."""
    for image in (0, len(index) - 1):
        path = index.path(image)
        try:
            size = client.stat(path).size
        except FileNotFoundError:
            size = None
        if size is None or size < int(index.offset[image]) + int(index.file_bytes[image]):
            state = "is missing" if size is None else "has changed"
            raise BadInput(f"{path} {state} since its index was made: {AGAIN}")
