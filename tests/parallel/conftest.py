"""The trajectory that the others are held against: all eight workers on one process."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from programs.trajectories import STEPS, VARIANTS
from support.images import write_jpegs
from support.launching import PROGRAMS, launch

from hvd_utils.inspect.compare import newest


@pytest.fixture(scope="session")
def jpegs(tmp_path_factory) -> Path:
    """72 training images of three classes, which minibatches of 32 do not divide."""
    root = tmp_path_factory.mktemp("jpegs")
    write_jpegs(root / "train", {"ant": 20, "bee": 28, "cat": 24}, seed=1)
    write_jpegs(root / "val", {"ant": 2, "bee": 3, "cat": 2}, seed=2)
    return root


@pytest.fixture(scope="session")
def run_variants(jpegs):
    """A function that launches the named variants and returns their last checkpoints by name."""

    def run(output: Path, by: str, ranks: int, names: Iterable[str] = VARIANTS) -> dict[str, dict]:
        job = str(PROGRAMS / "trajectories.py")
        ended = launch([job, str(jpegs), str(output), *names], by=by, ranks=ranks)
        assert ended.code == 0, ended.output
        ends = {name: newest(output / name) for name in names}
        assert {end["step"] for end in ends.values()} == {STEPS}
        return ends

    return run


@pytest.fixture(scope="session")
def alone(run_variants, tmp_path_factory) -> dict[str, dict]:
    """The last checkpoints of every variant on one process."""
    return run_variants(tmp_path_factory.mktemp("alone"), "python", 1)
