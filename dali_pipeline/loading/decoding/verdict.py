"""What a probe found of a way of decoding, and the choice that all nodes make by it; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hvd_utils.cli.errors import BadInput

WAYS = ("cpu", "gpu", "hardware")
WHOLE = "whole images"
KINDS = ("crops", WHOLE)  # what training decodes, and what validation does
LIMIT = 2.0  # mean difference of an image from the CPU's, in grey levels of 255
SAFE = "set --decode cpu"


class Verdict(NamedTuple):
    """Why a way of decoding may not be used, empty where it may, and its rate in images/s."""

    reason: str
    rate: float = 0.0
    # Whether it would be the same another time: not where the way hung or was killed from outside.
    lasting: bool = True

    @property
    def passed(self) -> bool:
        """Whether the way may be used."""
        return not self.reason


# The verdicts of a node by way, behind its host's name.
Node = tuple[str, Mapping[str, Verdict]]


def judge(pixels: np.ndarray, expected: np.ndarray, moved: Sequence[int]) -> str:
    """Return what is wrong with decoded images, uint8 (kinds, images, ...); empty: nothing is.

    The kinds are ``KINDS``; see ``judge_pixels``.
    """
    verdicts = map(judge_pixels, KINDS, pixels, expected, moved)
    return next(filter(None, verdicts), "")


def judge_pixels(kind: str, pixels: np.ndarray, expected: np.ndarray, moved: int) -> str:
    """Return what is wrong with decoded images, uint8 (images, ...); empty where nothing is.

    ``expected`` are the CPU's, ``moved`` is how many images were others in batches of another size
    and order. Decoders differ by rounding; those that agree stay far below the limit.
    """
    if moved:
        return f"{moved} of {len(pixels)} {kind} change with the size and order of the batch"
    off = np.abs(pixels.astype(np.int16) - expected).reshape(len(pixels), -1).mean(axis=1)
    wrong = np.count_nonzero(off > LIMIT)
    if wrong:
        return (
            f"{wrong} of {len(pixels)} {kind} are not the CPU's: they differ by up to "
            f"{off.max():.0f} of 255 grey levels on average, {LIMIT:g} are allowed"
        )
    return ""


def needed_ways(decode: str) -> tuple[str, ...]:
    """Return the ways to probe for --decode ``decode``; the CPU's is what others are held to."""
    return {"cpu": (), "auto": WAYS}.get(decode, ("cpu", decode))


def failures(nodes: Sequence[Node]) -> dict[str, str]:
    """Return the ways that failed on some node: host and reason of the first one, by way."""
    found: dict[str, str] = {}
    for host, verdicts in nodes:
        for way, verdict in verdicts.items():
            if not verdict.passed:
                found.setdefault(way, f"{verdict.reason} ({host})")
    return found


def choose(decode: str, nodes: Sequence[Node], before: str | None = None) -> str:
    """Return the way of decoding that all ranks take for --decode ``decode``.

    ``auto`` takes that of ``before``, by which the run was trained so far, if it still works. Else
    it takes the quickest that passed on every node, by the slowest node. Raises BadInput where a
    way that was asked for failed.
    """
    failed = failures(nodes)
    if decode != "auto":
        if decode in failed:
            raise BadInput(
                f"--decode {decode} does not work here: {failed[decode]}: {SAFE}, or, if that was "
                "mended, let python -m hvd_utils.preflight probe it again"
            )
        return decode
    rates = {
        way: min(verdicts[way].rate for _, verdicts in nodes) for way in WAYS if way not in failed
    }
    if before in rates:
        return before
    return max(rates, key=rates.__getitem__, default="cpu")


def describe(way: str, nodes: Sequence[Node]) -> str:
    """Return the line that tells which way was chosen, and what the others do."""
    failed = failures(nodes)
    told = [
        f"{name}: {failed[name]}"
        if name in failed
        else f"{name}: {min(verdicts[name].rate for _, verdicts in nodes):,.0f} images/s a process"
        for name in nodes[0][1]
    ]
    return f"decoding: {way}; {', '.join(told)}"
