#!/usr/bin/env python3
"""Build Horovod after each patch of the series, for CPUs, in one tree: ``make patches``.

    python tools/build_each_patch.py [--work DIR]

One line a patch: whether Horovod builds with it and those before it, and sums in one process.
Only what a patch touches is compiled again, not optimised (``HOROVOD_DEBUG=1``), which takes half
the time; the set-up builds the whole series, optimised. Nothing is installed. Ends with code 1
where a patch breaks what those before it built, or the whole series does not build.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import install_horovod as installer
import patching
from step import Failure, run

SUM = """
import horovod.torch as hvd, torch
assert hvd.__file__.startswith({built!r}), hvd.__file__
hvd.init()
assert hvd.allreduce(torch.ones(3), op=hvd.Sum).tolist() == [1] * 3
"""


def first_error(text: str) -> str:
    """Return the first line of a build's output that tells of an error, else its last line.

    CMake tells in the next line what its error is.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no output"]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("CMake Error"):
            return f"CMake Error: {following}"
        if re.search(r"(^|\s)error: ", line):
            return line
    return lines[-1]


def build(source: Path, log: Path, settings: Mapping[str, str]) -> str | None:
    """Compile what changed, import it and sum; return None, or why it does not build."""
    built = source / "build/lib"
    began = log.stat().st_size
    command = [sys.executable, "setup.py", "build", "--build-lib", str(built)]
    try:
        run(command, log, "does not build", cwd=source, env={**os.environ, **settings})
        variables = {**os.environ, "PYTHONPATH": str(built)}
        program = [sys.executable, "-c", SUM.format(built=str(built))]
        run(program, log, "builds, but fails", 300, cwd=built, env=variables)
    except Failure as failure:
        return f"{failure}: {first_error(log.read_bytes()[began:].decode(errors='replace'))}"
    return None


def main() -> None:
    """Unpack, and build after each patch."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path(".setup"), help="where it is built")
    folder = parser.parse_args().work.resolve() / "each-patch"
    archives = folder.parent / "horovod"
    for path in (folder, archives):
        path.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    log.write_text("")
    try:
        installer.mpi_compiler()
        settings = installer.build_settings(archives, "HOROVOD_WITHOUT_GPU=1")
        settings["HOROVOD_DEBUG"] = "1"
        source = installer.unpack(archives, log, folder)
        built = broken = False
        for patch in patching.series(installer.PATCHES):
            began = time.monotonic()
            patching.apply(patch, source)
            reason = build(source, log, settings)
            seconds = time.monotonic() - began
            print(f"{patch.name}: {seconds:.0f} s, {reason or 'builds'}", flush=True)
            broken = broken or (built and reason is not None)
            built = built or reason is None
    except (Failure, patching.DoesNotFit, OSError) as failure:
        sys.exit(f"build_each_patch: {failure}")
    if broken or reason:
        sys.exit(f"build_each_patch: the whole output is in {log}")


if __name__ == "__main__":
    main()
