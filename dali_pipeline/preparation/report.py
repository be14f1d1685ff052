"""The report of a verification: a summary, and a file that lists every odd image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from dali_pipeline.preparation.image_check import GRAYSCALE, UNDECODABLE
from dali_pipeline.preparation.verify import Verified

REPORT = "prepare-report.txt"


def summary(verified: Verified) -> list[str]:
    """Return what a split holds, and for each kind of finding how many images have it."""
    index = verified.index
    split = os.path.basename(index.root)
    size = tqdm.format_sizeof(index.file_bytes.sum(), "B")
    lines = [f"{split}: {len(index):,} images, {len(index.classes):,} classes, {size}"]
    for kind, (images, image, detail) in sorted(verified.kinds.items()):
        first = os.fsdecode(index.names[image])
        lines.append(f"{split}: {images:,} {kind}, first {first}: {detail}")
    return lines


def write_report(path: Path, splits: Sequence[Verified]) -> None:
    """Write PATH, KIND and DETAIL, tabs between, of findings but grayscale; the worst first."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", errors="surrogateescape") as file:
        file.writelines(f"# {line}\n" for verified in splits for line in summary(verified))
        for worst in (True, False):
            for verified in splits:
                split = os.path.basename(verified.index.root)
                for name, kind, detail in verified.findings():
                    if kind != GRAYSCALE and (kind == UNDECODABLE) == worst:
                        file.write(f"{split}/{name}\t{kind}\t{' '.join(detail.split())}\n")
    os.replace(temporary, path)
