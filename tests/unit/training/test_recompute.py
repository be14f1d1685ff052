"""Batch norm's statistics computed anew: those of all images, however they are shared."""

import copy

import torch
from torch import nn

from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend.flags import SharedFlags
from hvd_utils.horovod_backend.world import World
from hvd_utils.networks.freezing import freeze
from hvd_utils.nn.batch_norm import WorkerBatchNorm2d, normalise_by_worker
from hvd_utils.paper.logical_workers import passes
from hvd_utils.training.recompute import recent_steps, recompute_statistics
from hvd_utils.training.train_state import TrainState

WORLD = World(0, 1, 0, 1, "here", torch.device("cpu"), 1)
WORKERS, N = 6, 4


def recipe(images, **options):
    chosen = {"workers": WORKERS, "batch_per_worker": N, "precision": "fp64", **options}
    return Settings(recipe="paper", recompute_statistics=images, **chosen)


def images_of(step, worker):
    random = torch.Generator().manual_seed(100 * step + worker)
    return 3 + 2 * torch.randn(N, 2, 5, 5, generator=random, dtype=torch.float64)


def training(fused_passes):
    """A loader's batches: images of fused workers take turns."""

    def batches(first, last):
        for step in range(first, last):
            for fused in fused_passes:
                stacked = torch.stack([images_of(step, worker) for worker in fused], dim=1)
                yield stacked.flatten(0, 1), None

    return batches


def network(fuse=1):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3), nn.ReLU(), nn.BatchNorm2d(3), nn.Dropout(0.5)
    ).double()
    normalise_by_worker(model, passes(range(WORKERS), fuse), N)
    return model


def recomputed_state(model, fuse=1, images=50, step=7, flags=None, **options):
    """Return the state in training of ``model``, with statistics computed anew."""
    mine, chosen = passes(range(WORKERS), fuse), recipe(images, **options)
    state = TrainState.build(model, chosen, len(mine), 1)
    recompute_statistics(
        state, training(mine), step, recipe=chosen, passes=mine, world=WORLD,
        flags=SharedFlags(1) if flags is None else flags, heartbeat=lambda *_: None,
    )  # fmt: skip
    return state


def recomputed(fuse=1, **options):
    return recomputed_state(network(fuse), fuse, **options).model


def test_whole_minibatches_are_taken_the_last_ones():
    assert recent_steps(recipe(50), 7) == range(4, 7)  # of 24
    assert recent_steps(recipe(48), 7) == range(5, 7)
    assert recent_steps(recipe(10**6), 7) == range(7)
    assert not recent_steps(recipe(0), 7)


def test_statistics_are_those_of_all_images():
    model = recomputed()
    seen = torch.cat([images_of(s, w) for s in (4, 5, 6) for w in range(WORKERS)])
    assert torch.allclose(model[0].running_mean, seen.mean(dim=(0, 2, 3)), rtol=1e-12)
    assert torch.allclose(model[0].running_var, seen.var(dim=(0, 2, 3)), rtol=1e-12)


def test_deeper_layers_see_what_each_worker_normalised_by_itself():
    model, fresh = recomputed(), network().train()
    seen = [
        fresh[2](fresh[1](fresh[0](images_of(s, w)))) for s in (4, 5, 6) for w in range(WORKERS)
    ]
    expected = torch.cat(seen)
    assert torch.allclose(model[3].running_mean, expected.mean(dim=(0, 2, 3)), rtol=1e-12)
    assert torch.allclose(model[3].running_var, expected.var(dim=(0, 2, 3)), rtol=1e-12)


def test_fusing_workers_changes_nothing():
    model, fused = recomputed(), recomputed(fuse=4)
    assert isinstance(fused[0], WorkerBatchNorm2d)
    for place in (0, 3):
        for name in ("running_mean", "running_var"):
            ours, theirs = getattr(model[place], name), getattr(fused[place], name)
            assert torch.allclose(ours, theirs, rtol=1e-12)


def test_it_is_off_by_default_and_broken_off_by_a_flag():
    before = {name: value.clone() for name, value in network().state_dict().items()}
    for model in (recomputed(images=0), recomputed(flags=SharedFlags(1, stop=lambda: True))):
        for name, value in model.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                assert torch.equal(value, before[name])
        assert model[0].momentum == 1.0  # of a model in training
        assert not model[0]._forward_pre_hooks


def test_frozen_norms_keep_their_statistics_and_normalise_by_them():
    """Of averaged weights too, none of which is trained."""
    for average in ("none", "ema"):
        model = network()
        model[0].running_mean.fill_(3)
        freeze(model, ["0"])
        state = recomputed_state(model, average=average)
        validated, fresh = state.averaged.validated, network().train()
        assert torch.equal(validated[0].running_mean, torch.full((2,), 3.0).double())
        assert torch.equal(validated[0].running_var, torch.ones(2).double())
        fresh[0].running_mean.fill_(3)
        fresh[0].eval()
        seen = [fresh[:3](images_of(s, w)) for s in (4, 5, 6) for w in range(WORKERS)]
        expected = torch.cat(seen).mean(dim=(0, 2, 3))
        assert torch.allclose(validated[3].running_mean, expected, rtol=1e-12)
        if average == "ema":
            assert not model[3].running_mean.any()


def test_a_run_goes_on_from_them_as_one_that_stopped_there():
    """The statistics in training after the next step are the same, resumed or not."""
    whole, again = recomputed_state(network()), recomputed_state(network(), images=0)
    again.load_state_dict(copy.deepcopy(whole.state_dict(7)))
    for state in (whole, again):
        state.statistics.send(torch.zeros(2))
        state.statistics.receive()
        state.statistics.update(keep=torch.tensor(False))
    assert torch.equal(whole.model[3].running_var, again.model[3].running_var)


def test_norms_without_pixels_and_norms_without_images_are_no_exception():
    torch.manual_seed(0)
    unused = nn.Identity()
    unused.norm = nn.BatchNorm2d(2)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(50), unused).double()
    recomputed_state(model)
    seen = torch.cat([images_of(s, w) for s in (4, 5, 6) for w in range(WORKERS)]).flatten(1)
    assert torch.allclose(model[1].running_mean, seen.mean(dim=0), rtol=1e-12)
    assert not unused.norm.running_mean.any()
