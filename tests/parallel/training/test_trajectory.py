"""One SGD trajectory: any number of processes, MPI or Gloo, any number of workers in a pass."""

from __future__ import annotations

import pytest
from programs.trajectories import VARIANTS

from hvd_utils.inspect.compare import differences
from hvd_utils.training.loss_scaler import FIRST_SCALE

# Only the order in which gradients are summed differs. In float64 that moves a sum by 1e-16, of
# which thirty steps were seen to make 3e-15. In float32 it is 6e-8 and 1.4e-6 where the network is
# smooth; with ReLU, rounding now and then switches an activation on or off, which no bound covers.
FLOAT64, FLOAT32 = 1e-10, 1e-5

# Sums are in float32 there too; what they differ by, the next products round to 8 or 11 bits.
SIXTEEN_BITS = 0.15

# What does not change how sums are made is run on two processes alone.
SPEED = ("fp64-compiled", "fp64-channels-first", "bf16", "fp16")
BEYOND = ("fp64-lars", "fp64-augmented")  # the paper
SUMS = [name for name in VARIANTS if not name.startswith((*SPEED, *BEYOND))]


MORE_RANKS = [pytest.param(ranks, marks=pytest.mark.long) for ranks in (3, 4, 8)]


def bound(name):
    """Return how far apart two runs of a variant may be."""
    bounds = {"fp64": FLOAT64, "fp32": FLOAT32}
    return bounds.get(name.partition("-")[0], SIXTEEN_BITS)


@pytest.mark.parametrize(
    "ranks", [2, *(pytest.param(n, marks=pytest.mark.long) for n in (3, 4, 8))]
)
@pytest.mark.parametrize("by", ["mpi", "gloo"])
def test_any_number_of_processes_makes_the_same_run(run_variants, alone, tmp_path, by, ranks):
    """k = 8: weights, momentum and running averages after 16 steps."""
    # What the variants are about, they show on 2 processes, and on 3, which carry 2, 3 and 3
    # workers. Gloo and more processes only add otherwise.
    names = {("mpi", 2): list(VARIANTS), ("gloo", 2): SUMS, ("mpi", 3): [*SUMS, *BEYOND]}.get(
        (by, ranks), ["fp64"] if by == "gloo" else ["fp64", "fp64-dropout", "fp32"]
    )
    ends = run_variants(tmp_path, by, ranks, names)
    for name in names:
        apart = differences(ends[name], alone[name])
        assert max(apart.values()) < bound(name), (name, apart)
        ours, theirs = (end["progress"]["top1_errors"] for end in (ends[name], alone[name]))
        assert ours == theirs
        assert ends[name]["guard"] == alone[name]["guard"]


def test_fusing_workers_in_a_pass_makes_the_same_run(alone):
    apart = differences(alone["fp64-fused"], alone["fp64"])
    assert 0 < max(apart.values()) < FLOAT64  # not 0: they were indeed summed otherwise
    assert max(differences(alone["fp32-fused"], alone["fp32"]).values()) < FLOAT32


def test_augmented_and_mixed_images_are_the_same_where_workers_are_fused(alone):
    apart = differences(alone["fp64-augmented-fused"], alone["fp64-augmented"])
    assert 0 < max(apart.values()) < FLOAT64
    assert differences(alone["fp64-augmented"], alone["fp64"])["weights"] > 1e4 * FLOAT64


def test_layout_and_compilation_make_the_same_run(alone):
    for name in ("fp64-compiled", "fp64-channels-first"):
        apart = differences(alone[name], alone["fp64"])
        assert 0 < max(apart.values()) < FLOAT64, name  # not 0: it was indeed computed otherwise


def test_statistics_are_computed_anew_at_the_end_of_an_epoch(alone):
    """Of the weights nothing changes; the running averages do."""
    apart = differences(alone["fp64-recomputed"], alone["fp64-fused"])
    assert apart["weights"] == 0
    assert apart["running averages"] > 1e4 * FLOAT64


def test_the_rate_inside_the_momentum_makes_the_same_weights(alone):
    """Remark 2, with its correction; what the optimizer holds is another."""
    outside = alone["fp64"]
    apart = differences({**alone["fp64-rate-inside"], "optimizer": outside["optimizer"]}, outside)
    assert 0 < apart["weights"] < FLOAT64


def test_lars_makes_another_run(alone):
    """What is compared above is indeed another trajectory, far off by the same measure."""
    comparable = {**alone["fp64-lars"], "optimizer": alone["fp64"]["optimizer"]}
    assert differences(comparable, alone["fp64"])["weights"] > 1e4 * FLOAT64


def test_mixed_precision_makes_about_the_same_run(alone):
    apart = differences(alone["bf16"], alone["fp32"])
    assert 0 < apart["weights"] < SIXTEEN_BITS


def test_an_overflow_of_one_worker_in_fp16_leaves_one_update_out_on_all_ranks(alone):
    """Worker 5's, which the second of two processes carries; both go on alike (see above)."""
    assert alone["fp16"]["guard"]["left_out"] == 1
    assert alone["fp16"]["guard"]["scaler"]["scale"] == 8 * FIRST_SCALE / 2


def test_the_bound_is_far_below_what_a_step_changes(alone):
    """The comparison would see a wrong minibatch: dropout alone moves the weights by far more."""
    alone["fp64-dropout"]["optimizer"] = alone["fp64"]["optimizer"]
    renamed = alone["fp64-dropout"]["model"]
    changed = {name.replace("fc.1.", "fc."): value for name, value in renamed.items()}
    apart = differences({**alone["fp64-dropout"], "model": changed}, alone["fp64"])
    assert apart["weights"] > 1e4 * FLOAT64
