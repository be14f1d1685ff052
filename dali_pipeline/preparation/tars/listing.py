"""Which tars a split has: those in a folder, below a prefix of S3, or of a URL with braces."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from dali_pipeline.dataset.index_file import SPLITS
from dali_pipeline.dataset.scan import walk
from dali_pipeline.storage.address import check_address
from dali_pipeline.storage.client import Client
from hvd_utils.cli.errors import BadInput

OPTION = "--from-shards"
BRACES = "braces, as https://HOST/PATH/{00000..01023}.tar"


class Tars(NamedTuple):
    """The tars of a split, by their ``names`` below ``root``, a folder or a URL.

    ``given`` is what the user wrote for them. A URL is encoded (%20 for a blank); names are not, as
    those that training reads below ``--data``.
    """

    given: str
    root: str
    names: Sequence[str]

    def path(self, name: str) -> str:
        """Return a tar's path or URL."""
        return f"{self.root}/{name}"


def tars_of_folder(folder: Path) -> Tars:
    """Return the tars in a folder and the folders within.

    Raises BadInput where there are none or a folder cannot be read.
    """
    tars = [
        PurePosixPath(inner, tar) for inner, names in walk(folder, "", _is_tar) for tar in names
    ]
    if not tars and any(folder.rglob("*.parquet")):
        raise BadInput(
            f"{folder} has Parquet files, whose images cannot be read in place: write them as tars "
            "of WebDataset's form (webdataset.TarWriter), with .jpg and .cls"
        )
    if not tars:
        raise BadInput(
            f"no tars in {folder}: expected {folder}/*.tar, not compressed, beside those of the "
            "other split"
        )
    return Tars(str(folder), str(folder), [*map(str, sorted(tars))])


def _is_tar(entry: os.DirEntry) -> bool:
    """Whether this has a tar's name; a link that leads nowhere is told when it is read."""
    return entry.name.endswith(".tar") and not entry.is_dir()


def tars_of_urls(given: Sequence[str]) -> list[Tars]:
    """Return the tars of both splits, of a prefix of S3, or of a URL for each split.

    Raises BadInput where a URL cannot be read or listed, or names no tars.
    """
    for url in given:
        check_address(url, OPTION)
    if len(given) == 1:
        if not given[0].startswith("s3:") or "{" in given[0] or given[0].endswith(".tar"):
            raise BadInput(
                f"{OPTION} {given[0]} does not tell training from validation: give a URL for each, "
                f"{OPTION} TRAIN VAL, with {BRACES}"
            )
        given = [f"{given[0].rstrip('/')}/{split}" for split in SPLITS]
    return [_tars_of_url(url) for url in given]


def _tars_of_url(given: str) -> Tars:
    """Return the tars of a URL in the order in which a folder would have them."""
    tars = [tar for url in expand(given) for tar in _tars_at(url)]
    if not tars:
        raise BadInput(f"no tars at {given}: check {OPTION}; it needs .tar, not compressed")
    store, *others = {store_of(tar) for tar in tars}
    if others:
        raise BadInput(f"{OPTION} {given} names several hosts or buckets: give tars of one")
    folders = {tar[len(store) :].rpartition("/")[0] or "/" for tar in tars}
    root = (store + os.path.commonpath(folders)).rstrip("/")
    names = {unquote(tar[len(root) + 1 :]) for tar in tars}
    return Tars(given, root, sorted(names, key=PurePosixPath))


def expand(pattern: str) -> list[str]:
    """Return the URLs of a pattern with braces: ``{00..12}`` and ``{a,b}``, as a shell has them.

    By braceexpand (github.com/trendels/braceexpand), as WebDataset does. Raises BadInput where a
    brace is not closed.
    """
    if "{" not in pattern and "}" not in pattern:
        return [pattern]
    try:
        from braceexpand import braceexpand  # optional: beside obstore
    except ImportError as error:
        raise BadInput(
            f"{OPTION} {pattern}: braces need braceexpand, which is not installed: pip install "
            "braceexpand"
        ) from error
    try:
        urls = list(braceexpand(pattern, escape=False))
    except ValueError as error:
        raise BadInput(f"{OPTION} {pattern} has a brace too many: give {BRACES}") from error
    if any("{" in url for url in urls):  # no range and no list, which it leaves as it is
        raise BadInput(f"{OPTION} {pattern} has braces without a range or list: give {BRACES}")
    return urls


def _tars_at(url: str) -> list[str]:
    """Return a tar's URL itself, or those of the tars below a prefix of S3."""
    if url.endswith(".tar"):
        return [url]
    if re.search(r"\.(tgz|tar\.\w+)$", url):
        raise BadInput(f"{url} is compressed: its images cannot be read in place; unpack it")
    if not url.startswith("s3:"):
        raise BadInput(f"{url} is no .tar, and a web server does not list them: give {BRACES}")
    return [found for found in Client(store_of(url)).list(unquote(url)) if found.endswith(".tar")]


def store_of(url: str) -> str:
    """Return the bucket or host of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
