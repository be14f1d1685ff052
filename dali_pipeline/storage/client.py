"""The client of an object store or web server: obstore, which retries with backoff.

obstore (https://developmentseed.org/obstore) is the Rust crate object_store in Python: one wheel of
6 MB for http and S3. It checks what range a server answers with, and retries what stalls, breaks
off in a body, or fails with 429 or 5xx.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from hvd_utils.cli.errors import BadInput

PATIENCE = 120.0  # seconds of retrying, where the settings do not say
TRIES = 6  # of a request that stalls each time, within the patience
LEAST_WAIT = 5.0  # seconds, before a request counts as stalled
FIRST_WAIT, LONGEST_WAIT = timedelta(milliseconds=100), timedelta(seconds=10)


_process: int | None = None  # in which obstore's threads run


class Stat(NamedTuple):
    """An object's bytes, when it was changed, nanoseconds, and its ETag, if it has one."""

    size: int
    mtime_ns: int
    tag: str | None

    @property
    def version(self) -> str:
        """What another object at the same URL would not have: the ETag, or else size and time."""
        return self.tag or f"{self.size:,} bytes, {self.mtime_ns // 10**9} s"


class Client:
    """Reads objects below ``url``; each failed request is repeated for ``patience`` seconds.

    ``AWS_*`` variables configure S3: keys, region, AWS_ENDPOINT_URL, and AWS_SKIP_SIGNATURE for
    public buckets.
    """

    def __init__(self, url: str, patience: float = PATIENCE) -> None:
        from obstore.store import from_url  # optional: checked by ``check_address``

        self._url = url
        wait = timedelta(seconds=max(patience / TRIES, LEAST_WAIT))
        try:
            self._store = from_url(
                url,
                # http:// is what the user wrote, in --data or in AWS_ENDPOINT_URL.
                client_options={"timeout": wait, "connect_timeout": wait, "allow_http": True},
                retry_config={
                    "max_retries": 10_000,  # time is the bound
                    "retry_timeout": timedelta(seconds=patience),
                    "backoff": {"init_backoff": FIRST_WAIT, "max_backoff": LONGEST_WAIT, "base": 2},
                },
            )
        except Exception as error:  # of a URL or a variable, each with a class of its own
            raise BadInput(f"cannot read from {url}: {_first_line(error)}") from error

    def fetch(self, path: str, offset: int, length: int) -> memoryview:
        """Return bytes of an object, fewer where it ends.

        Raises FileNotFoundError where there is none, and BadInput with what is wrong otherwise.
        """
        return self._get(path, offset, length)[0]

    def require(self, path: str, offset: int, length: int) -> tuple[memoryview, Stat]:
        """Return the same, with what the answer tells of the object; it has to be there.

        Raises BadInput where it is not, too: not an image is bad, which may be skipped.
        """
        try:
            return self._get(path, offset, length)
        except FileNotFoundError as error:
            raise BadInput(str(error)) from error

    def _get(self, path: str, offset: int, length: int) -> tuple[memoryview, Stat]:
        import obstore

        with _explained(path):
            answer = obstore.get(
                self._store, self._name(path), options={"range": (offset, offset + length)}
            )
            return memoryview(answer.bytes()), _stat(answer.meta)

    def stat(self, path: str) -> Stat:
        """Look at an object; raises FileNotFoundError where there is none, BadInput otherwise."""
        import obstore

        try:
            with _explained(path):
                return _stat(obstore.head(self._store, self._name(path)))
        except FileNotFoundError:
            with contextlib.suppress(FileNotFoundError):
                self.fetch(path, 0, 1)  # S3 does not say in answer to HEAD that a bucket is missing
            raise

    def list(self, prefix: str) -> list[str]:
        """Return the URLs of all objects below a prefix; for S3. Raises BadInput."""
        import obstore

        with _explained(prefix):
            pages = obstore.list(self._store, self._name(prefix) or None)
            names = [found["path"].replace("%", "%25") for page in pages for found in page]
            return [f"{self._url}/{name}" for name in names]

    def _name(self, path: str) -> str:
        return path.removeprefix(self._url).lstrip("/")


def _stat(meta: Mapping[str, Any]) -> Stat:
    return Stat(meta["size"], int(meta["last_modified"].timestamp()) * 10**9, meta["e_tag"])


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Translate what obstore raises: FileNotFoundError and BadInput with a line of ours."""
    _require_threads()
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise BadInput(explain(path, error)) from error
        raise FileNotFoundError(explain(path, error)) from error
    except Exception as error:
        raise BadInput(explain(path, error)) from error


def _require_threads() -> None:
    """Raise BadInput where this process was forked from one that has read.

    obstore's threads are the parent's: it would wait for ever (seen with obstore 0.12).
    """
    global _process
    _process = _process or os.getpid()
    if _process != os.getpid():
        raise BadInput(
            "a process that was forked cannot read from object storage, as its parent did before: "
            "start processes by 'spawn' or 'forkserver'"
        )


def explain(path: str, error: Exception) -> str:
    """Return in one line what was wrong with a request, and what to do."""
    text = str(error)
    status = re.search(r"status code: (\d+)", text)
    code = int(status[1]) if status else 0
    if "169.254.169.254" in text:  # where keys of a machine in AWS would be
        return (
            f"cannot read {path}: no keys for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or AWS_SKIP_SIGNATURE=true for a public bucket"
        )
    if "NoSuchBucket" in text:
        return f"cannot read {path}: no such bucket: check --data and AWS_ENDPOINT_URL"
    if isinstance(error, FileNotFoundError):
        return f"{path} does not exist ({code or 404}): check --data, and AWS_ENDPOINT_URL for S3"
    if code in (401, 403):
        return f"cannot read {path}: refused ({code}): check the keys (AWS_*) and what they allow"
    if "Range request not supported" in text:
        return (
            f"cannot read {path}: its server answers no range requests: use one that does, as "
            "nginx, Apache or an S3 store"
        )
    found = re.search(r'(?:message|error): "([^"]+)"', text)  # of the operating system
    reason = f"error {code}" if code else found[1] if found else ""
    reason = reason or ("no answer in time" if "TimedOut" in text else _first_line(error))
    tried = ", tried again until --storage-patience was over" * ("retries" in text)
    return f"cannot read {path}: {reason}{tried}: check the address, the network and the server"


def _first_line(error: Exception) -> str:
    return (str(error) or repr(error)).splitlines()[0]
