"""Verdicts of earlier probes, kept by what they depend on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from dali_pipeline.loading.decoding.verdict import Verdict
from hvd_utils.cli.checkout import cache_folder

VERSION = 2  # raised whenever the probe or the graph that it runs changes
DRIVER = Path("/proc/driver/nvidia/version")


def probe_key(device: int, images: str, driver: Path = DRIVER) -> dict[str, str]:
    """Return what a verdict depends on: node, card, driver, libraries, and the images' folder."""
    import torch
    from nvidia import dali, nvimgcodec

    try:
        version = driver.read_text().partition("\n")[0].strip()
    except OSError:
        version = "unknown"
    return {
        "probe": str(VERSION),
        "host": socket.gethostname(),
        "card": torch.cuda.get_device_name(device),
        "driver": version,
        "DALI": dali.__version__,
        "nvImageCodec": nvimgcodec.__version__,
        "images": images,
    }


def verdict_file(key: Mapping[str, str]) -> Path | None:
    """Return the file of verdicts with this key; None for a user without a home."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode(errors="replace"))
    try:
        return cache_folder() / "decoding" / f"{digest.hexdigest()[:16]}.json"
    except RuntimeError:
        return None


def recall(file: Path | None, ways: Iterable[str]) -> dict[str, Verdict] | None:
    """Return the verdicts on ``ways`` in ``file``; None where one of them is not there."""
    if file is None:
        return None
    try:
        kept = json.loads(file.read_text())["verdicts"]
        return {way: Verdict(*kept[way]) for way in ways}
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none yet, or a damaged file: probed anew


def remember(file: Path | None, key: Mapping[str, str], verdicts: Mapping[str, Verdict]) -> None:
    """Keep those verdicts that last, beside earlier ones on other ways; without a disk, none."""
    if file is None:
        return
    lasting = {way: verdict for way, verdict in verdicts.items() if verdict.lasting}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        lasting = json.loads(file.read_text())["verdicts"] | lasting
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=file.stem)
        with os.fdopen(handle, "w") as text:
            json.dump({"key": dict(key), "verdicts": lasting}, text, indent=2)
        os.replace(temporary, file)
