"""What ``--data`` may name beside a folder: s3://BUCKET/PREFIX and https://HOST/PATH."""

from __future__ import annotations

import importlib.util
import re
from urllib.parse import urlsplit

from hvd_utils.cli.errors import BadInput

SCHEMES = ("s3", "https", "http")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_remote(data: object) -> bool:
    """Return whether this text is a URL and no folder; of what scheme, is not looked at."""
    return isinstance(data, str) and _URL.match(data) is not None


def check_address(url: str, what: str = "--data") -> None:
    """Raise BadInput where data at this URL cannot be read from here; asks no server."""
    try:
        parts = urlsplit(url)
        host, odd = parts.hostname, parts.query or parts.fragment or "@" in parts.netloc
    except ValueError as error:
        raise BadInput(f"{what} {url} is no URL ({error}): give s3://BUCKET/PREFIX") from error
    if parts.scheme not in SCHEMES:
        raise BadInput(
            f"{what} {url}: nothing here reads {parts.scheme}://; give a folder, "
            "s3://BUCKET/PREFIX or https://HOST/PATH"
        )
    if not host:
        form = "s3://BUCKET/PREFIX" if parts.scheme == "s3" else f"{parts.scheme}://HOST/PATH"
        raise BadInput(f"{what} {url} names no {'bucket' if parts.scheme == 's3' else 'host'}: "
                       f"give {form}")  # fmt: skip
    if odd:  # it would stand in every log
        bare = f"{parts.scheme}://{host}{parts.path}"
        raise BadInput(
            f"{what} {bare} has a user, a query or a fragment: leave it out; keys of S3 go into "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if importlib.util.find_spec("obstore") is None:
        raise BadInput(
            f"{what} {url} is read by obstore, which is not installed: pip install obstore"
        )
