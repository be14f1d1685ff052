"""Averaged weights, growing, augmented and mixed images: any processes, killed on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.kills import metrics, run_with_kills
from support.launching import TINY, train

from dali_pipeline.sampling.image_size import training_side
from hvd_utils.config.command_line import load_settings
from hvd_utils.inspect.compare import differences, newest, relative_difference
from hvd_utils.run.folder import best_path

pytestmark = pytest.mark.long

STEPS = 60
IMAGES = 30  # of tiny_data: with minibatches of 12, two steps and a half an epoch
OPTIONS = (
    *(*TINY, "--epochs", "90", "--reference-rate", "0.0125", "--reference-minibatch", "8"),
    *("--workers", "6", "--batch-per-worker", "2", "--precision", "fp64"),
    *("--average", "ema", "--average-decay", "0.9", "--checkpoint-every", "1"),
    *("--resolution", "64", "--resolution-from", "16", "--resolution-ramp", "4,20"),
    *("--val-resolution", "40", "--val-resize", "48"),
    *("--augment", "trivial", "--erase", "0.5", "--mixup", "0.2", "--cutmix", "1"),
)
SEED = 5  # kills at about step 22 of those from 12 to 37, whose side is 32


@pytest.fixture(scope="module")
def undisturbed(tiny_data, tmp_path_factory) -> Path:
    """The run in one go."""
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    options = ("--data", tiny_data, *OPTIONS, "--max-steps", STEPS, "--output", output)
    ended = train(*options, ranks=2, by="mpirun")
    assert ended.code == 0, ended.output
    return output


def test_killed_in_mid_ramp_it_goes_on_on_other_processes_to_the_same_end(
    tiny_data, undisturbed, tmp_path
):
    output, launches = tmp_path / "run", [(2, "mpirun"), (3, "mpi")]
    options = ("--data", tiny_data, *OPTIONS)
    (kill,) = run_with_kills(options, output, launches, steps=STEPS, seed=SEED)
    recipe = load_settings([*OPTIONS], {})
    sides = [training_side(recipe, step, IMAGES) for step in (0, kill.step, STEPS - 1)]
    assert sides == [16, 32, 64]
    mine, theirs = newest(output), newest(undisturbed)
    assert mine["step"] == theirs["step"] == STEPS
    assert max(differences(mine, theirs).values()) < 1e-10
    assert mine["progress"]["top1_errors"] == theirs["progress"]["top1_errors"]
    ours, others = metrics(output), metrics(undisturbed)
    assert [event.pop("event") for event in ours] == [event.pop("event") for event in others]
    for one, other in zip(ours, others, strict=True):
        assert one == pytest.approx(other, rel=1e-10)


def test_the_averaged_weights_are_what_is_judged(tiny_data, undisturbed):
    """By validation, by best.pt and by --eval-only alike; they are far from the step's own."""
    state = newest(undisturbed)
    weights = "fc.weight"
    assert relative_difference(state["averaged"][weights], state["model"][weights]) > 1e-3
    ended = train("--data", tiny_data, *OPTIONS, "--eval-only", best_path(undisturbed))
    assert ended.code == 0, ended.output
    lowest = min(state["progress"]["top1_errors"])
    assert f"averaged weights): top-1 error {lowest:.2f} %" in ended.output
