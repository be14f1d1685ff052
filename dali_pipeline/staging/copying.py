"""Copy files in several threads; each gets its name only when it is whole."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

from dali_pipeline.staging.files import File
from dali_pipeline.staging.sources import Folder, Source
from hvd_utils.cli.errors import BadInput

TOGETHER = 16  # files that a thread takes at once

Advance = Callable[[int], None]  # called with the number of bytes copied


class Copier:
    """Copies files of ``source`` to ``destination``; ``partial`` is for what is not whole."""

    def __init__(self, source: Source, destination: Path, partial: Path, threads: int) -> None:
        self._source, self._destination = source, destination
        self._partial = partial
        self._threads = threads

    def copy(self, files: Sequence[File], advance: Advance) -> None:
        """Copy files; raises OSError, and BadInput where one changes meanwhile."""
        for folder in sorted({os.path.dirname(file.name) for file in files}):
            (self._destination / folder).mkdir(parents=True, exist_ok=True)
        self._for_all(lambda file: self._copy(file, advance), files)

    def different(self, files: Sequence[File], advance: Advance) -> list[File]:
        """Return the files whose contents are not the same on both sides, by SHA-256."""
        found: list[File] = []

        def compare(file: File) -> None:
            sides = (self._source, Folder(self._destination))
            if len({_digest(side.chunks(file.name)) for side in sides}) > 1:
                found.append(file)
            advance(file.size)

        self._for_all(compare, files)
        return sorted(found)

    def _for_all(self, work: Callable[[File], None], files: Sequence[File]) -> None:
        """Work on files in threads; the first that fails ends it, and its error is raised."""
        with ThreadPool(self._threads) as pool:
            for _ in pool.imap_unordered(work, files, chunksize=TOGETHER):
                pass

    def _copy(self, file: File, advance: Advance) -> None:
        temporary = self._partial / f"{os.getpid()}-{threading.get_ident()}"
        with temporary.open("wb") as write:
            for chunk in self._source.chunks(file.name):
                write.write(chunk)
                advance(len(chunk))
            now = self._source.look(file.name)._replace(size=write.tell())
            write.flush()
            os.fsync(write.fileno())  # else its name may survive a power cut, and its bytes not
        if not file.same(now):
            raise BadInput(
                f"{self._source.where(file.name)} changed while it was staged: start again when "
                "nobody writes there"
            )
        os.utime(temporary, ns=(now.mtime_ns, now.mtime_ns))
        os.replace(temporary, self._destination / file.name)


def _digest(chunks: Iterable[bytes | memoryview]) -> bytes:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()
