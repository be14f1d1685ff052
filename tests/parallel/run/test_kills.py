"""A run that is killed at any instant, and started again, ends as the undisturbed one.

KILLS is the number of kills in all (20), SEED decides when and whom they hit: the same seed draws
the same again. ``make nightly`` makes 200 with a new seed.
"""

from __future__ import annotations

import os
from itertools import cycle, islice
from pathlib import Path

import pytest
from support.kills import Kill, metrics, run_with_kills
from support.launching import TINY, train

from hvd_utils.inspect.compare import differences, newest

pytestmark = pytest.mark.long

KILLS = int(os.environ.get("KILLS", "20"))
SEED = int(os.environ.get("SEED", "0"))
A_RUN = 10  # kills at most in one run: each costs a launch

# Below it, only the order of summation can be the reason: see test_trajectory.py.
FLOAT64 = 1e-10

STEPS = 100
SMALL = (*TINY, "--epochs", "90", "--reference-rate", "0.0125", "--reference-minibatch", "8")
SMALL += ("--checkpoint-every", "1")
FIXED = (*SMALL, "--workers", "2")
CHANGING = (*SMALL, "--workers", "6", "--batch-per-worker", "2", "--precision", "fp64")


def shares(kills: int) -> list[int]:
    """Divide kills among runs."""
    return [min(A_RUN, kills - done) for done in range(0, kills, A_RUN)]


MADE: list[Kill] = []
HALF = KILLS // 2
RUNS = list(enumerate(shares(KILLS - HALF))), list(enumerate(shares(HALF)))


@pytest.fixture(scope="module", autouse=True)
def _show_the_seed():
    print(f"\nto repeat these kills: KILLS={KILLS} SEED={SEED}", flush=True)


@pytest.fixture(scope="module")
def undisturbed(tiny_data, tmp_path_factory):
    """A function that makes a run in one go; each set of options once."""
    made: dict[tuple, Path] = {}

    def run(options: tuple) -> Path:
        if options not in made:
            output = made[options] = tmp_path_factory.mktemp("undisturbed") / "run"
            arguments = ("--data", tiny_data, *options, "--max-steps", STEPS, "--output", output)
            ended = train(*arguments, ranks=2, by="mpirun")
            assert ended.code == 0, ended.output
        return made[options]

    return run


def disturbed(tiny_data, output, options, kills, seed, launches) -> None:
    options = ("--data", tiny_data, *options)
    launches = list(islice(cycle(launches), kills + 1))
    made = run_with_kills(options, output, launches, steps=STEPS, seed=seed)
    assert len(made) == kills
    MADE.extend(made)


@pytest.mark.parametrize(("number", "kills"), RUNS[0])
def test_the_same_processes_end_with_the_same_bits(tiny_data, undisturbed, tmp_path, number, kills):
    whole, output = undisturbed(FIXED), tmp_path / "run"
    launches = [(2, "mpirun"), (2, "mpirun"), (2, "mpi"), (2, "gloo")]
    disturbed(tiny_data, output, FIXED, kills, 1000 * SEED + number, launches)
    mine, theirs = newest(output), newest(whole)
    assert mine["step"] == theirs["step"] == STEPS
    assert set(differences(mine, theirs).values()) == {0.0}
    assert mine["progress"]["top1_errors"] == theirs["progress"]["top1_errors"]
    assert metrics(output) == metrics(whole)


@pytest.mark.parametrize(("number", "kills"), RUNS[1])
def test_other_processes_at_each_start_differ_by_rounding(
    tiny_data, undisturbed, tmp_path, number, kills
):
    """k = 6 on 2, 3 and 1 processes in turn, in doubles."""
    whole, output = undisturbed(CHANGING), tmp_path / "run"
    launches = [(2, "mpirun"), (3, "mpi"), (1, "python")]
    disturbed(tiny_data, output, CHANGING, kills, 1000 * SEED + 500 + number, launches)
    mine, theirs = newest(output), newest(whole)
    assert mine["step"] == theirs["step"] == STEPS
    assert max(differences(mine, theirs).values()) < FLOAT64
    assert mine["progress"]["top1_errors"] == theirs["progress"]["top1_errors"]
    ours, others = metrics(output), metrics(whole)
    assert len(ours) == len(others)
    for one, other in zip(ours, others, strict=True):
        assert one.pop("event") == other.pop("event")
        assert one == pytest.approx(other, rel=FLOAT64)


def test_kills_have_hit_the_writing_of_checkpoints():
    """Half of them are aimed at it; which a killed rank 1 or launcher does not interrupt."""
    if len(MADE) < 20:
        pytest.skip("too few kills were made")
    assert any(kill.half_written for kill in MADE)
