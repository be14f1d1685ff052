"""Read what wandb keeps of an offline run: LevelDB's log format, of its own records.

https://github.com/google/leveldb/blob/main/doc/log_format.md
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

FILE_HEADER, BLOCK = 7, 32768
HEADER = struct.Struct("<IHB")  # checksum, length, kind
FULL, LAST = 1, 4


def rows(run: Path) -> list[dict]:
    """Return the rows of a run's history, of all its launches in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for path in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        for data in records(path.read_bytes()):
            record = Record.FromString(data)
            if record.WhichOneof("record_type") == "history":
                found.append(
                    {
                        item.key or ".".join(item.nested_key): json.loads(item.value_json)
                        for item in record.history.item
                    }
                )
    return found


def records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a log file."""
    at, parts = FILE_HEADER, b""
    while at + HEADER.size <= len(data):
        if BLOCK - at % BLOCK < HEADER.size:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(data, at)
        parts += data[at + HEADER.size : at + HEADER.size + length]
        at += HEADER.size + length
        if kind in (FULL, LAST):
            yield parts
            parts = b""
