"""The running statistics of a run: one vector at one place, through epochs and a loaded state."""

import copy

import torch

from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend.flags import SharedFlags
from hvd_utils.horovod_backend.world import World
from hvd_utils.nn.batch_norm import batch_norms
from hvd_utils.nn.models import build_model
from hvd_utils.training.loops import train
from hvd_utils.training.train_state import TrainState

WORLD = World(0, 1, 0, 1, "here", torch.device("cpu"), 1)
SETTINGS = Settings(recipe="test", workers=1, batch_per_worker=4, precision="fp64")


def build(seed):
    model = build_model("resnet8", 5, zero_gamma=False, seed=seed).double()
    return TrainState.build(model, SETTINGS, 1, 1)


def batches(steps):
    """Yield images that depend on the step alone."""
    for step in steps:
        random = torch.Generator().manual_seed(step)
        images = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=random)
        yield images, torch.arange(4)


def epoch(state, first):
    steps = range(first, first + 2)
    for _ in train(
        state, lambda step: 0.1, batches(steps), steps, recipe=SETTINGS, passes=[range(1)],
        world=WORLD, flags=SharedFlags(1),
    ):  # fmt: skip
        pass


def places(state):
    norms = batch_norms(state.model)
    return [t.data_ptr() for norm in norms for t in (norm.running_mean, norm.running_var)]


def test_running_averages_keep_their_place_so_that_cuda_graphs_need_not_be_recorded_again():
    state = build(seed=1)
    began = places(state)
    epoch(state, 0)
    state.load_state_dict(copy.deepcopy(state.state_dict(2)))
    epoch(state, 2)
    assert places(state) == began


def test_a_loaded_state_goes_on_from_its_own_running_averages():
    """Not from those of the run that was there before."""
    whole, other = build(seed=1), build(seed=2)
    epoch(whole, 0)
    saved = copy.deepcopy(whole.state_dict(2))
    epoch(whole, 2)
    epoch(other, 0)
    other.load_state_dict(saved)
    epoch(other, 2)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], value), name
