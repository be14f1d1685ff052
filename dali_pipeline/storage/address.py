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
    shown = _without_secrets(url)  # what is printed stands in every log
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:  # of which the text may hold a part of a key
        raise BadInput(
            f"{what} {shown} is no URL of a host and a path: give s3://BUCKET/PREFIX"
        ) from error
    if parts.scheme not in SCHEMES:
        raise BadInput(
            f"{what} {shown}: nothing here reads {parts.scheme}://; give a folder, "
            "s3://BUCKET/PREFIX or https://HOST/PATH"
        )
    form = "s3://BUCKET/PREFIX" if parts.scheme == "s3" else f"{parts.scheme}://HOST/PATH"
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise BadInput(
            f"{what} {shown} has a user, a query or a fragment: leave it out; keys of S3 go into "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if parts.scheme == "s3" and port is not None:
        raise BadInput(f"{what} {shown} has a port: set AWS_ENDPOINT_URL, and give {form}")
    if not parts.hostname:
        raise BadInput(
            f"{what} {shown} names no {'bucket' if parts.scheme == 's3' else 'host'}: give {form}"
        )
    if importlib.util.find_spec("obstore") is None:
        raise BadInput(
            f"{what} {url} is read by obstore, which is not installed: pip install obstore"
        )


def _without_secrets(url: str) -> str:
    """Return a URL without user, keys, query and fragment; a key may have any sign in it."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[?#]', rest.rpartition('@')[2])[0]}"
