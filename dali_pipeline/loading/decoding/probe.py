"""Probe ways of decoding on this node, each in a child process: a decoder may crash or hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dali_pipeline.loading.decoding.crops import Crops
from dali_pipeline.loading.decoding.verdict import WAYS, Verdict, judge
from hvd_utils.cli.checkout import ROOT

DECODERS = dict.fromkeys(WAYS, "dali_pipeline.loading.decoding.by_dali:ByDali")
SECONDS = 120.0  # for a child, with its imports
NOT_ITS_FAULT = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def probe(
    crops: Crops,
    decoders: Mapping[str, str],
    device: int | None,
    threads: int,
    seconds: float = SECONDS,
) -> dict[str, Verdict]:
    """Return the verdict on each way of ``decoders``: whether it survives, its pixels, its rate.

    ``decoders`` are ``module:class`` by way (see ``probe_child``), "cpu" first: the images of the
    others are held to its. ``device`` is a GPU's number; None: all is done on the CPU.
    """
    verdicts: dict[str, Verdict] = {}
    expected: np.ndarray | None = None
    with tempfile.TemporaryDirectory(prefix="decode-probe-") as folder:
        given, result = Path(folder, "crops.npz"), Path(folder, "result.npz")
        crops.save(given)
        for way, decoder in decoders.items():
            place = str(-1 if device is None else device)
            arguments = [decoder, way, str(given), str(result), place, str(threads)]
            verdict = _run(arguments, seconds)
            if verdict.passed:
                with np.load(result) as file:
                    pixels, moved, rate = file["pixels"], file["moved"], float(file["rate"])
                result.unlink()
                expected = pixels if way == "cpu" else expected
                if expected is None:
                    reason = f"nothing to compare it with: by cpu {verdicts['cpu'].reason}"
                    verdict = Verdict(reason, rate, lasting=False)
                else:
                    verdict = Verdict(judge(pixels, expected, moved), rate)
            verdicts[way] = verdict
    return verdicts


def _run(arguments: list[str], seconds: float) -> Verdict:
    """Run the child; return how it failed, or a verdict without a reason."""
    command = [sys.executable, "-m", f"{__package__}.probe_child", *arguments]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            env={**os.environ, "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired:
        return Verdict(f"no answer within {seconds:.0f} s", lasting=False)
    if done.returncode < 0:
        killer = signal.Signals(-done.returncode)
        return Verdict(f"killed by {killer.name}", lasting=killer not in NOT_ITS_FAULT)
    if done.returncode:
        lines = done.stdout.decode(errors="replace").strip().splitlines() or ["no word"]
        # What else runs on a GPU may leave too little of its memory.
        text = f"ended with code {done.returncode}: {' '.join(lines[-1].split())[:300]}"
        return Verdict(text, lasting="memory" not in text.lower())
    return Verdict("")
