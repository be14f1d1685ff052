"""Does each node see the same images, and do some of them decode? Runs in the child."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dali_pipeline.dataset.index import BadImage, Index
from dali_pipeline.dataset.index_file import SPLITS, index_path, open_splits
from dali_pipeline.dataset.mapped import pieces
from dali_pipeline.dataset.open_remote import open_alone
from dali_pipeline.dataset.scan import EXTENSIONS, check_splits
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import name_hosts, some
from hvd_utils.config.settings import Settings
from hvd_utils.preflight.verdict import FAIL, OK, WARN, Verdict, odd_ones

CLASSES_LOOKED_INTO = 20  # of a folder without index: walking it on every node takes too long
MANY = 1_000_000  # images among which those to decode are chosen
SIZES_LOOKED_AT = 500  # files of a split


def see(data: Path) -> tuple[dict[str, Any], tuple[Index, Index]]:
    """Return what this node sees of ``data``, and the images that it checked.

    A prepared index is read whole; without one, some class folders stand for all. Raises BadInput
    where the data cannot be used.
    """
    check_splits(data)
    if any(index_path(data, split).exists() for split in SPLITS):
        splits = open_splits(data)
        facts = {index.root: _facts_of_index(index) for index in splits}
    else:
        looks = [look_into(data / split) for split in SPLITS]
        splits = (looks[0][0], looks[1][0])
        facts = {index.root: fact for index, fact in looks}
    train, val = facts.values()
    return {"train": train, "val": val}, splits


def see_remote(settings: Settings) -> tuple[dict[str, Any], tuple[Index, Index]]:
    """Return the same of data in an object store, whose index comes to this node's cache."""
    train, val = open_alone(settings)
    return {"train": _facts_of_index(train), "val": _facts_of_index(val)}, (train, val)


def _facts_of_index(index: Index) -> dict[str, Any]:
    digest = hashlib.sha256(index.digest().encode())
    for part in pieces(index.file_bytes):
        digest.update(part.tobytes())
    return {
        "images": len(index),
        "classes": len(index.classes),
        "bytes": int(index.file_bytes.sum()),
        "digest": digest.hexdigest()[:12],
        "how": "prepared index",
        "sampled": False,
    }


def look_into(root: Path) -> tuple[Index, dict[str, Any]]:
    """Return the images of some class folders of a split, and what was seen of it.

    All class folders are listed; evenly chosen ones are looked into, and some of their files'
    sizes added up. Raises BadInput where there is no class folder or a chosen one has no images.
    """
    with os.scandir(root) as entries:
        classes = sorted(entry.name for entry in entries if entry.is_dir())
    if not classes:
        raise BadInput(f"no class folders in {root}: expected {root}/CLASS/IMAGE.jpg")
    looked = _evenly(classes, CLASSES_LOOKED_INTO)
    names, labels = [], []
    for label, name in enumerate(looked):
        with os.scandir(root / name) as entries:
            files = [e.name for e in entries if os.path.splitext(e.name)[1].lower() in EXTENSIONS]
        if not files:
            raise BadInput(f"class folder {root / name} has no images: fill it or remove it")
        names += [f"{name}/{file}" for file in sorted(files)]
        labels += [label] * len(files)
    sized = _evenly(names, SIZES_LOOKED_AT)
    digest = hashlib.sha256("\0".join(classes + names).encode(errors="surrogateescape"))
    complete = len(looked) == len(classes)
    facts = {
        "images": len(names) if complete else round(len(names) * len(classes) / len(looked)),
        "classes": len(classes),
        "bytes": sum((root / name).stat().st_size for name in sized),
        "digest": digest.hexdigest()[:12],
        "how": f"{len(looked)} of {len(classes)} classes listed, {len(sized)} files' sizes",
        "sampled": not complete,
    }
    encoded = np.array([os.fsencode(name) for name in names], dtype=bytes)
    return Index(str(root), tuple(looked), encoded, np.array(labels, np.int32)), facts


def _evenly(items: Sequence, most: int) -> list:
    if len(items) <= most:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, most).astype(int)]


def decode_some(index: Index, count: int, seed: int) -> dict[str, Any]:
    """Decode ``count`` random images of as many classes by DALI; return where bad ones are."""
    from dali_pipeline.loading.dali.diagnose import find_undecodable

    random = np.random.default_rng(seed)
    few = len(index) <= MANY
    ids = np.arange(len(index)) if few else np.unique(random.integers(len(index), size=MANY))
    random.shuffle(ids)
    # The first of each class, then the second of each and so on: many classes among few images.
    _, place = np.unique(index.labels[ids], return_inverse=True)
    order = np.argsort(place, kind="stable")
    turn = np.empty(len(ids), int)
    starts = np.searchsorted(place[order], place[order])
    turn[order] = np.arange(len(ids)) - starts
    chosen = ids[np.argsort(turn, kind="stable")][:count]
    bad, good, encoded = {}, [], []
    for image in chosen.tolist():
        try:
            encoded.append(np.frombuffer(index.read(image), np.uint8))
            good.append(image)
        except BadImage as error:
            bad[index.whereabouts(image)] = error.reason
    for image, reason in find_undecodable(np.array(good, int), encoded):
        bad[index.whereabouts(image)] = reason
    return {"decoded": len(chosen) - len(bad), "bad": bad}


def judge(
    facts: Mapping[int, Mapping], hosts: Mapping[int, str], on_bad_image: str = "stop"
) -> list[Verdict]:
    """Judge what each node's first rank saw of the data and decoded."""
    return [_judge_listing(facts, hosts), _judge_decoded(facts, hosts, on_bad_image)]


def _judge_listing(facts: Mapping[int, Mapping], hosts: Mapping[int, str]) -> Verdict:
    odd = []
    for split in SPLITS:
        looks = {rank: fact[split] for rank, fact in facts.items()}
        for key, text in (("images", "images"), ("classes", "classes"), ("bytes", "bytes")):
            odd.append(
                odd_ones(f"{split} {text}:", {r: f"{k[key]:,}" for r, k in looks.items()}, hosts)
            )
        if not any(odd):
            odd.append(
                odd_ones(f"{split} listing", {r: k["digest"] for r, k in looks.items()}, hosts)
            )
    if any(odd):
        remedy = "copy or mount the same data on every node, with the same index"
        return Verdict("data", FAIL, "; ".join(text for text in odd if text), remedy)
    fact = facts[min(facts)]
    counts = [
        f"{'about ' if fact[split]['sampled'] else ''}{fact[split]['images']:,} {name} images"
        for split, name in zip(SPLITS, ("training", "validation"), strict=True)
    ]
    nodes = "on 1 node" if len(facts) == 1 else f"the same on {len(facts)} nodes"
    train = fact["train"]
    seen = f"{' and '.join(counts)} of {train['classes']} classes {nodes} ({train['how']})"
    return Verdict("data", OK, seen)


def _judge_decoded(
    facts: Mapping[int, Mapping], hosts: Mapping[int, str], on_bad_image: str
) -> Verdict:
    bad = {path: reason for fact in facts.values() for path, reason in fact["bad"].items()}
    decoded = sum(fact["decoded"] for fact in facts.values())
    if bad:
        where = [rank for rank, fact in facts.items() if fact["bad"]]
        named = some(f"{path} ({reason})" for path, reason in sorted(bad.items()))
        seen = f"cannot decode {named}, on {name_hosts(where, hosts)}"
        verdict = FAIL if on_bad_image == "stop" or not decoded else WARN
        return Verdict(
            "decoding", verdict, seen, "repair or remove it, or train with --on-bad-image skip"
        )
    return Verdict("decoding", OK, f"{decoded} random images by DALI")
