"""Communication beside backprop, bucket by bucket."""

from __future__ import annotations

import pytest

from hvd_utils.scaling.gradients import Gradient, gradients_of
from hvd_utils.scaling.overlap import Horovod, fuse, simulate

TWO = (Gradient("last", 100, 0.5), Gradient("first", 100, 1.0))


def test_tensors_are_fused_in_order_up_to_the_threshold():
    assert list(fuse([4, 4, 4, 20, 1], 10)) == [8, 4, 20, 1]
    assert list(fuse([4, 4], 0)) == [4, 4]  # no fusion
    assert list(fuse([], 10)) == []


def test_what_backprop_hides_is_counted_and_what_outlasts_it():
    """Ready at 5 s and at 10 s; each sum takes 3 s, so that the second ends 3 s after backprop."""
    overlap = simulate(TWO, 1, 10.0, lambda size: 3.0, 0.0, Horovod(1e9, 0.0))
    assert (overlap.exposed, overlap.hidden, overlap.allreduces) == (3.0, 3.0, 2)


def test_a_cycle_fuses_what_became_ready_while_the_last_one_was_summed():
    """The first is in use until 12 s, when all three others are there: one buffer."""
    four = [Gradient(str(i), 1, ready) for i, ready in enumerate((0.5, 0.6, 0.9, 1.0))]
    overlap = simulate(four, 1, 10.0, lambda size: 7.0, 0.0, Horovod(1e9, 0.0))
    assert overlap.allreduces == 2
    assert overlap.exposed == pytest.approx(9.0)


def test_cycle_and_negotiation_cost_what_they_take():
    overlap = simulate(TWO[1:], 1, 10.0, lambda size: 3.0, 0.5, Horovod(1e9, 4.0))
    assert overlap.exposed == pytest.approx(2.0 + 0.5 + 3.0)  # the cycle that begins at 12 s


def test_without_overlap_nothing_is_hidden_and_all_is_one_buffer():
    overlap = simulate(TWO, 1, 10.0, lambda size: size / 100, 0.0, Horovod(1e9, 0.0, False))
    assert (overlap.exposed, overlap.hidden, overlap.allreduces) == (2.0, 0.0, 1)


@pytest.mark.parametrize("gbytes", [0.01, 0.1, 1, 10, 100])
@pytest.mark.parametrize("cycle", [0.1e-3, 1e-3, 50e-3])
def test_never_more_is_hidden_than_backprop_lasts_or_communication_takes(gbytes, cycle):
    backward, taken = 0.125, []

    def allreduce(size):
        taken.append(size / (gbytes * 1e9) + 1e-4)
        return taken[-1]

    gradients = gradients_of("resnet50")
    overlap = simulate(gradients, 4, backward, allreduce, 1e-5, Horovod(cycle_seconds=cycle))
    assert len(taken) == overlap.allreduces
    assert 0 <= overlap.hidden <= min(backward, sum(taken)) + 1e-9
    assert overlap.hidden + overlap.exposed >= sum(taken) - 1e-9
