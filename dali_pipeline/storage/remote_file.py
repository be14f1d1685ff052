"""An object in a store as a file of which little is read."""

from __future__ import annotations

import os
from collections import deque

from dali_pipeline.storage.client import Client
from hvd_utils.cli.errors import BadInput

LEAST, MOST = 1 << 14, 1 << 22  # bytes of a request
KEPT = 8  # answers, as readers of tars go back to the files of a sample


class RemoteFile:
    """A file for ``tarfile``, of an object of ``size`` bytes at ``url``.

    A request asks for ``LEAST`` bytes, and for twice as many as the one before where it goes on
    near that one's end: small files are read in few requests, and large ones are passed over.
    """

    def __init__(self, client: Client, url: str, size: int) -> None:
        self._client, self._url, self._size = client, url, size
        self._at = 0
        self._ahead = LEAST
        self._version = ""  # of the first answer
        self._answers: deque[tuple[int, memoryview]] = deque(maxlen=KEPT)

    def seekable(self) -> bool:
        """Return True: otherwise PIL reads all."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, as files do."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}
        self._at = origin[whence] + offset
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return bytes, fewer where the object ends.

        Raises BadInput where it cannot be read, or is another one than at first.
        """
        end = self._size if size < 0 else min(self._at + size, self._size)
        if end <= self._at:
            return b""
        begin, answer = self._answer_with(end)
        data = bytes(answer[self._at - begin : end - begin])
        self._at = end
        return data

    def _answer_with(self, end: int) -> tuple[int, memoryview]:
        """Return an answer that has all from here to ``end``, and its place."""
        for begin, answer in reversed(self._answers):
            if begin <= self._at and end <= begin + len(answer):
                return begin, answer
        near = False
        if self._answers:
            begin, answer = self._answers[-1]
            near = begin <= self._at < begin + len(answer) + LEAST
        self._ahead = min(2 * self._ahead, MOST) if near else LEAST
        length = min(max(end - self._at, self._ahead), self._size - self._at)
        answer, stat = self._client.require(self._url, self._at, length)
        self._version = self._version or stat.version
        if len(answer) < length or stat.version != self._version:
            raise BadInput(f"{self._url} changed while it was read: start again")
        self._answers.append((self._at, answer))
        return self._at, answer
