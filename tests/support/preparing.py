"""ImageNet's tars in miniature; preparing a data set in one process, and seeing what it wrote."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from dali_pipeline import prepare
from dali_pipeline.preparation.devkit import DEVKIT, GROUND_TRUTH, SYNSETS
from dali_pipeline.preparation.imagenet_tars import TRAIN_TAR, VAL_TAR

COUNTS = {"n01440764": 3, "n01443537": 2, "n02105855": 4}  # training images of each class
VAL = (3, 1, 2, 1)  # ILSVRC2012_IDs of the validation images: places in COUNTS from 1


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def tar_of(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in files.items():
            add(tar, name, data)
    return file.getvalue()


def jpeg(seed: int) -> bytes:
    file = io.BytesIO()
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((40 + seed, 30), Image.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def synsets() -> bytes:
    """ImageNet's own structure: the leaves, and one of their ancestors."""
    kind = [
        (name, object)
        for name in (
            *("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children"),
            *("wordnet_height", "num_train_images"),
        )
    ]
    rows = [
        (number, wnid, "a, b", "gloss", 0, np.zeros(0), 0, count)
        for number, (wnid, count) in enumerate(COUNTS.items(), start=1)
    ]
    rows.append((4, "n00001740", "entity", "gloss", 3, np.array([1, 2, 3]), 1, 0))
    file = io.BytesIO()
    savemat(file, {"synsets": np.array(rows, dtype=kind).reshape(-1, 1)})
    return file.getvalue()


def write_tars(source: Path) -> Path:
    """Write ImageNet's three files in miniature."""
    source.mkdir()
    seeds = iter(range(100))
    classes = {
        f"{wnid}.tar": tar_of({f"{wnid}_{i}.JPEG": jpeg(next(seeds)) for i in range(count)})
        for wnid, count in COUNTS.items()
    }
    (source / TRAIN_TAR).write_bytes(tar_of(classes))
    flat = {f"ILSVRC2012_val_{i + 1:08d}.JPEG": jpeg(next(seeds)) for i in range(len(VAL))}
    (source / VAL_TAR).write_bytes(tar_of(flat))
    with tarfile.open(source / DEVKIT, "w:gz") as tar:
        add(tar, SYNSETS, synsets())
        add(tar, GROUND_TRUTH, "".join(f"{number}\n" for number in VAL).encode())
    return source


def run(*arguments: object) -> None:
    prepare.main([*map(str, arguments), "--processes", "1"])


def state(folder: Path) -> dict[str, tuple]:
    """Every file with what would show that it was written again."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_ino)
        for path in folder.rglob("*")
        if path.is_file()
    }
