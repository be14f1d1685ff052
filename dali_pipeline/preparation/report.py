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
    for kind in sorted({kind for found in verified.findings.values() for kind in found}):
        images = verified.images_with(kind)
        first = os.fsdecode(index.names[images[0]])
        detail = verified.findings[images[0]][kind]
        lines.append(f"{split}: {len(images):,} {kind}, first {first}: {detail}")
    return lines


def write_report(path: Path, splits: Sequence[Verified]) -> None:
    """Write PATH, KIND and DETAIL, tabs between, of findings but grayscale; the worst first."""
    lines = []
    for verified in splits:
        split = os.path.basename(verified.index.root)
        for image, found in verified.findings.items():
            name = os.fsdecode(verified.index.names[image])
            lines += [
                (kind != UNDECODABLE, f"{split}/{name}\t{kind}\t{' '.join(detail.split())}\n")
                for kind, detail in found.items()
                if kind != GRAYSCALE
            ]
    heads = "".join(f"# {line}\n" for verified in splits for line in summary(verified))
    body = "".join(line for _, line in sorted(lines))
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(heads + body, errors="surrogateescape")
    os.replace(temporary, path)
