"""The learning rate, with the paper's own numbers."""

from itertools import pairwise

import pytest

from hvd_utils.config.command_line import load_settings
from hvd_utils.paper.schedule import (
    constant_warmup,
    cosine_decay,
    first_step,
    gradual_warmup,
    linear_scaling,
    make_schedule,
    no_scaling,
    polynomial_decay,
    square_root_scaling,
    step_decay,
)

IMAGENET = 1_281_167


def schedule(minibatch: int, *flags: str):
    recipe = load_settings(["--recipe", "paper", "--data", "x", *flags], {})
    return make_schedule(recipe, IMAGENET, minibatch)


@pytest.mark.parametrize(
    ("minibatch", "rate"), [(8192, 3.2), (256, 0.1), (512, 0.2), (65536, 25.6)]
)
def test_linear_scaling_gives_the_papers_rates(minibatch, rate):
    assert linear_scaling(0.1, minibatch, 256) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("minibatch", [32, 100, 255, 257, 300, 7 * 32])
def test_linear_scaling_is_a_float_between_the_multiples(minibatch):
    assert linear_scaling(0.1, minibatch, 256) == pytest.approx(0.1 * minibatch / 256)
    assert linear_scaling(0.1, minibatch, 256) > 0


def test_controls_of_table_2():
    assert square_root_scaling(0.1, 8192, 256) == pytest.approx(0.1 * 32**0.5)
    assert no_scaling(0.1, 8192, 256) == 0.1


def test_ninety_epochs_at_8192_are_14075_steps_782_of_them_warmup():
    assert first_step(5, IMAGENET, 8192) == 782
    assert first_step(90, IMAGENET, 8192) == 14_075
    assert first_step(0, IMAGENET, 8192) == 0


def test_first_step_rounds_to_the_nearest_minibatch_and_takes_parts_of_epochs():
    assert [first_step(e, 10, 4) for e in range(5)] == [0, 3, 5, 8, 10]
    assert first_step(0.5, 100, 10) == 5


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.1),  # not 0, not the one-GPU rate
        (391, 1.65),  # half way
        (781, 0.1 + 3.1 * 781 / 782),
        (782, 3.2),
        (783, 3.2),
        (4691, 3.2),
        (4692, 0.32),  # epoch 30
        (9383, 0.32),
        (9384, 0.032),  # epoch 60
        (12510, 0.032),
        (12511, 0.0032),  # epoch 80
        (14074, 0.0032),
    ],
)
def test_the_papers_schedule_at_8192(step, rate):
    assert schedule(8192)(step) == pytest.approx(rate, rel=1e-9)


def test_warmup_grows_by_a_constant_amount_at_every_iteration():
    rates = [schedule(8192)(step) for step in range(783)]
    increments = [after - before for before, after in pairwise(rates)]
    assert increments == pytest.approx([3.1 / 782] * 782, rel=1e-6)


def test_constant_warmup_jumps():
    control = schedule(8192, "--warmup", "constant")
    assert [control(s) for s in (0, 781, 782)] == pytest.approx([0.1, 0.1, 3.2])
    assert constant_warmup(3, 4, 0.1, 3.2) == 0.1


def test_no_warmup_starts_at_the_target():
    assert schedule(8192, "--warmup", "none")(0) == pytest.approx(3.2)


@pytest.mark.parametrize(("minibatch", "first"), [(256, 0.1), (128, 0.05), (288, 0.1)])
def test_warmup_is_used_only_above_the_reference(minibatch, first):
    assert schedule(minibatch)(0) == pytest.approx(first)
    assert schedule(minibatch)(first_step(20, IMAGENET, minibatch)) == pytest.approx(
        0.1 * minibatch / 256
    )


def test_scaling_controls_can_be_chosen():
    assert schedule(8192, "--scaling", "sqrt")(1000) == pytest.approx(0.1 * 32**0.5)
    assert schedule(8192, "--scaling", "none")(1000) == pytest.approx(0.1)


def test_gradual_warmup_of_no_length_is_no_warmup():
    assert gradual_warmup(0, 0, 0.1, 3.2) == 3.2


def test_step_decay_counts_boundaries_passed():
    assert [step_decay(s, (3, 6), 0.1) for s in (2, 3, 5, 6)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_the_rate_depends_on_the_step_alone():
    forward, backward = schedule(8192), schedule(8192)
    steps = range(0, 14_075, 97)
    later = {step: backward(step) for step in reversed(steps)}
    assert all(forward(step) == later[step] for step in steps)


def test_polynomial_decay_runs_from_the_end_of_warmup_to_zero():
    """As LARS's authors have it: power 2, of what is left of the run."""
    rates = schedule(8192, "--decay", "polynomial")
    assert rates(391) == pytest.approx(1.65)  # warmup as ever
    assert rates(782) == pytest.approx(3.2)
    assert rates(7428) > 3.2 / 4 > rates(7429)  # half way, at 7428.5
    assert 0 < rates(14_074) == pytest.approx(3.2 / 13_293**2)
    assert rates(14_075) == 0


def test_the_power_of_polynomial_decay():
    assert polynomial_decay(0.5, 1) == 0.5
    assert polynomial_decay(0.75, 3) == pytest.approx(1 / 64)
    line = schedule(8192, "--decay", "polynomial", "--decay-power", "1")
    assert line(782 + 1329) == pytest.approx(3.2 * (1 - 1329 / 13_293))


def test_cosine_decay_is_half_a_wave():
    assert [cosine_decay(x, 2) for x in (0, 1 / 3, 0.5, 2 / 3)] == pytest.approx(
        [1, 0.75, 0.5, 0.25]
    )
    rates = schedule(8192, "--decay", "cosine")
    assert rates(782) == pytest.approx(3.2)
    assert rates(782 + 4431) == pytest.approx(2.4, rel=1e-9)  # a third of 13,293 steps
    assert rates(14_075) == 0


@pytest.mark.parametrize("decay", ["cosine", "polynomial"])
def test_without_warmup_a_smooth_decay_starts_at_once(decay):
    for flags in ((8192, "--warmup", "none"), (256,)):
        rates = schedule(*flags, "--decay", decay)
        assert rates(0) > rates(1) > rates(2)


@pytest.mark.parametrize("decay", ["cosine", "polynomial"])
def test_a_run_no_longer_than_its_warmup_does_not_decay(decay):
    rates = schedule(8192, "--decay", decay, "--epochs", "3")
    assert rates(400) == pytest.approx(0.1 + 3.1 * 400 / 782)
