"""The side of the images follows from the step alone."""

import pytest

from dali_pipeline.sampling.image_size import (
    largest_side,
    ramp_side,
    training_side,
    validation_side,
)
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.command_line import load_settings
from hvd_utils.config.settings import Settings
from hvd_utils.paper.schedule import epoch_at, first_step

IMAGENET = 1_281_167
GROWING = Settings(
    recipe="paper", workers=8, batch_per_worker=4,
    resolution=192, resolution_from=128, resolution_ramp=(2, 6), val_resolution=224,
)  # fmt: skip


def test_the_side_grows_linearly_in_multiples_of_32():
    sides = [ramp_side(epoch, 128, 224, (2, 8)) for epoch in range(11)]
    assert sides == 3 * [128] + 2 * [160] + 2 * [192] + 4 * [224]
    assert [ramp_side(e, 160, 192, (11, 13)) for e in (0, 11, 12, 13, 15)] == [160, 160] + 3 * [192]


def test_sides_that_are_no_multiples_of_32_are_kept_at_both_ends():
    assert [ramp_side(epoch, 16, 72, (0, 4)) for epoch in range(6)] == [16, 32, 32, 64, 72, 72]
    assert {ramp_side(epoch, 16, 24, (0, 4)) for epoch in range(6)} == {16, 24}


@pytest.mark.parametrize(
    ("images", "minibatch"), [(30, 8), (30, 30), (72, 32), (7, 2), (IMAGENET, 8192)]
)
def test_a_step_belongs_to_the_epoch_that_begins_there_or_before(images, minibatch):
    for epoch in range(12):
        begins, ends = (first_step(e, images, minibatch) for e in (epoch, epoch + 1))
        assert [epoch_at(step, images, minibatch) for step in (begins, ends - 1)] == [epoch] * 2


def test_a_step_has_the_side_of_its_epoch_whoever_carries_the_workers():
    """72 images in minibatches of 32: epochs begin at steps 0, 2, 5, 7, 9, 11 and 14."""
    sides = [training_side(GROWING, step, 72) for step in range(16)]
    assert sides == 7 * [128] + 4 * [160] + 5 * [192]
    other = GROWING.model_copy(update={"workers": 4, "batch_per_worker": 8})
    assert [training_side(other, step, 72) for step in range(16)] == sides


def test_validation_has_a_side_of_its_own_where_it_is_set():
    assert (validation_side(GROWING), largest_side(GROWING)) == (224, 224)
    same = GROWING.model_copy(update={"val_resolution": None})
    assert (validation_side(same), largest_side(same)) == (192, 192)
    paper = Settings(recipe="paper", workers=8)
    assert training_side(paper, 0, 1000) == validation_side(paper) == 224


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--resolution-ramp 6,13", "--resolution-from and --resolution-ramp belong together"),
        ("--resolution-from 128", "--resolution-from and --resolution-ramp belong together"),
        ("--resolution-from 256 --resolution-ramp 6,13", "256 may not be larger than --reso.* 224"),
        ("--resolution-from 0 --resolution-ramp 6,13", "--resolution-from 0: .*greater than 0"),
        ("--resolution-from 128 --resolution-ramp 13,6", "the first before the second"),
        ("--resolution-from 128 --resolution-ramp -1,6", "the first before the second"),
        ("--resolution-from 128 --resolution-ramp 6", "--resolution-ramp"),
        ("--resolution-from 128 --resolution-ramp 6,x", "--resolution-ramp x"),
        ("--val-resolution 288", "--val-resize may not be smaller than --val-resolution"),
        ("--resolution 288", "--val-resize may not be smaller than --resolution"),
    ],
)
def test_nonsense_is_refused_in_one_line_that_names_it(flags, words):
    arguments = ["--recipe", "paper", "--data", "x"]
    for flag in flags.split("--")[1:]:
        name, value = flag.split()
        arguments.append(f"--{name}={value}")
    with pytest.raises(BadInput, match=words) as caught:
        load_settings(arguments, {})
    assert "\n" not in str(caught.value)


def test_validation_may_be_larger_than_training_and_smaller_than_its_resize():
    settings = load_settings(["--resolution", "24", "--val-resolution=20", "--val-resize=20"], {})
    assert (settings.resolution, validation_side(settings)) == (24, 20)
