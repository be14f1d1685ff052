"""Compare what must be equal on all ranks, whenever a world of processes starts.

Each rank reads its own command line, recipe file, environment and code. Ranks that differ would
train together without a word, on other images or at other rates.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hvd_utils.cli.checkout import ROOT
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import SHOWN, name_ranks
from hvd_utils.config.settings import Settings

CODE = ("train_imagenet.py", "hvd_utils/**/*.py", "dali_pipeline/**/*.py")
PACKAGES = (
    *("torch", "torchvision", "horovod", "numpy", "pillow"),
    *("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
)

# These may differ: where files lie, and what changes neither results nor messages between ranks.
OWN = frozenset(
    {
        *("data", "output", "recipe", "autotune", "resume"),
        *("loader_threads", "prefetch", "fuse_workers", "pin", "device"),
        *("largest_height", "largest_width", "checkpoint_every", "keep_checkpoints"),
    }
)
REMEDY = (
    "give every rank the same command, recipe file, environment (mpirun passes a variable on with "
    "-x NAME alone) and code"
)


def shared_facts(settings: Settings) -> dict[str, Any]:
    """Return what has to be equal on all ranks: settings, code and versions, as plain values."""
    values = settings.model_dump(mode="json")
    facts = {f"--{n.replace('_', '-')}": v for n, v in values.items() if n not in OWN}
    facts["code"] = code_hash(ROOT, CODE)
    facts["Python"] = ".".join(platform.python_version_tuple()[:2])
    return facts | {name: _version(name) for name in PACKAGES}


def code_hash(repository: Path, patterns: Sequence[str]) -> str:
    """Return a short hash of the files that match: names and contents."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in repository.glob(pattern)}):
        digest.update(f"{path.relative_to(repository)}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def require_equal(everywhere: Sequence[tuple[str, Mapping[str, Any]]], rank: int) -> None:
    """Raise BadInput where ranks differ; ``everywhere`` has host and facts of each, in order.

    All ranks raise, and so end together; in an elastic launch only those that differ from rank 0,
    and the others continue without them.
    """
    hosts = {other: host for other, (host, _) in enumerate(everywhere)}
    expected = everywhere[0][1]
    odd = {
        other: _difference(expected, facts)
        for other, (_, facts) in enumerate(everywhere)
        if facts != expected
    }
    if not odd or (os.environ.get("HOROVOD_ELASTIC") == "1" and rank not in odd):
        return
    first = min(odd)
    raise BadInput(
        f"{name_ranks(odd, hosts)} {'has' if len(odd) == 1 else 'have'} not what rank 0 "
        f"({hosts[0]}) has: on rank {first} {odd[first]}: {REMEDY}"
    )


def _difference(expected: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    names = [*expected, *(name for name in facts if name not in expected)]
    differ = [
        f"{name} is {facts.get(name)}, on rank 0 {expected.get(name)}"
        for name in names
        if facts.get(name) != expected.get(name)
    ]
    more = f"; and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
    return "; ".join(differ[:SHOWN]) + more


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
