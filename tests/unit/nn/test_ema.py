"""Averaged weights follow every update that was made, and go with a run wherever it goes."""

import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend.elastic import _pack, _unpack
from hvd_utils.horovod_backend.flags import SharedFlags
from hvd_utils.horovod_backend.world import World
from hvd_utils.nn.batch_norm import WorkerBatchNorm2d, batch_norms, normalise_by_worker
from hvd_utils.nn.compile import compile_stages
from hvd_utils.nn.ema import AveragedWeights, decay_at
from hvd_utils.nn.memory_format import set_memory_format
from hvd_utils.nn.models import build_model
from hvd_utils.run.checkpoint import load_checkpoint, save_checkpoint
from hvd_utils.run.progress import Progress
from hvd_utils.run.state import collect_state, restore_state
from hvd_utils.training.loops import train
from hvd_utils.training.train_state import TrainState

WORLD = World(0, 1, 0, 1, "here", torch.device("cpu"), 1)
SETTINGS = Settings(recipe="paper", average="ema", average_decay=0.3, workers=2, batch_per_worker=4)


class Training:
    """Steps of a small network with two fused workers, and the average of its weights."""

    def __init__(self, settings=SETTINGS, *, seed=1, channels_last=True, precision="fp64"):
        self.model = build_model("resnet8", 5, zero_gamma=False, seed=seed).double()
        normalise_by_worker(self.model, [range(2)], 4)
        set_memory_format(self.model, channels_last=channels_last)
        self.settings = settings.model_copy(update={"precision": precision})
        self.training = TrainState.build(self.model, self.settings, 1, 1)
        self.averaged, self.optimizer = self.training.averaged, self.training.optimizer
        self.guard, self.progress = self.training.guard, Progress()

    def steps(self, count):
        """Make steps on images that depend on the step alone; yield after each."""
        first = self.progress.step
        batches = ((_images(step), torch.arange(8) % 5) for step in range(first, first + count))
        for _ in train(
            self.training, lambda step: 0.1, batches, range(first, first + count),
            recipe=self.settings.model_copy(update={"precision": "fp64"}), passes=[range(2)],
            world=WORLD, flags=SharedFlags(1),
        ):  # fmt: skip
            self.progress.step += 1
            yield

    def state(self):
        facts = {"num_classes": 5, "train_images": 9}
        return collect_state(self.settings, self.progress, self.training, facts)

    def restore_state(self, state):
        self.progress = restore_state(state, self.training, [10**6])


def _images(step):
    return torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(step)).double()


def floating(model):
    state = model.state_dict().items()
    return {name: v.clone() for name, v in state if v.is_floating_point()}


def assert_equal(ours, theirs, **tolerance):
    assert ours.keys() == theirs.keys()
    for name in ours:
        if tolerance:
            assert torch.allclose(ours[name], theirs[name], **tolerance), name
        else:
            assert torch.equal(ours[name], theirs[name]), name


def test_the_first_weights_are_soon_forgotten_and_then_the_decay_rules():
    assert [decay_at(step, 0.99) for step in (0, 8)] == [0.1, 0.5]
    assert decay_at(10_000, 0.99) == 0.99


def test_the_average_is_the_moving_average_spelled_out_of_weights_and_running_averages():
    training = Training()
    expected = floating(training.model)
    for step, _ in enumerate(training.steps(5)):
        decay = min(0.3, (1 + step) / (10 + step))
        for name, value in floating(training.model).items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    ours = floating(training.averaged.validated)
    assert_equal(ours, expected, rtol=1e-12, atol=1e-15)
    name = "stages.0.bn1.running_var"
    assert not torch.allclose(ours[name], training.model.state_dict()[name])


def test_once_the_decay_rules_it_is_pytorchs():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    ours = AveragedWeights(layer, SETTINGS)
    theirs = AveragedModel(layer, multi_avg_fn=get_ema_multi_avg_fn(0.3), use_buffers=True)
    theirs.update_parameters(layer)  # its first only copies
    for step in range(100, 105):
        layer[0].weight.data += torch.randn(2, 3)
        layer[1].running_mean += torch.randn(2)
        ours.update(step, torch.tensor(True))
        theirs.update_parameters(layer)
    assert_equal(floating(ours.validated), floating(theirs.module), rtol=1e-6)


def test_an_update_that_was_left_out_is_not_averaged():
    """An overflow in fp16, in the third of five steps; a sum that is not finite ends the run."""
    training, overflows = Training(precision="fp16"), iter([False, False, True, False, False])

    def overflow(module, given, taken):
        return (given[0] * math.inf,) if next(overflows) else None

    training.model.fc.register_full_backward_hook(overflow)
    seen, expected = [floating(training.averaged.validated)], floating(training.model)
    for step, _ in enumerate(training.steps(5)):
        seen.append(floating(training.averaged.validated))
        if step != 2:
            decay = min(0.3, (1 + step) / (10 + step))
            for name, value in floating(training.model).items():
                expected[name] = decay * expected[name] + (1 - decay) * value
    assert training.guard.facts()["updates_left_out"] == 1
    assert_equal(seen[3], seen[2])
    assert_equal(seen[5], expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("way", ["checkpoint", "memory"])
def test_a_run_goes_on_to_the_bit_in_any_layout(tmp_path, way):
    """From a file, and from what the survivors of an elastic run hold."""
    whole, first, second = Training(), Training(), Training(seed=2)
    assert list(whole.steps(4)) == 4 * [None]
    assert list(first.steps(2)) == 2 * [None]
    if way == "checkpoint":
        state = load_checkpoint(save_checkpoint(tmp_path, first.state(), keep=1))
    else:
        state = _unpack(_pack(first.state()))
    second.restore_state(state)
    assert list(second.steps(2)) == 2 * [None]
    ours, theirs = second.state(), whole.state()
    assert_equal(ours["averaged"], theirs["averaged"])
    assert_equal(ours["model"], theirs["model"])
    other = Training(channels_last=False)
    other.restore_state(state)
    assert_equal(other.state()["averaged"], state["averaged"])
    assert other.averaged.validated.state_dict()["stages.0.conv1.weight"].is_contiguous()


def test_a_new_run_begins_with_the_weights_that_all_ranks_have():
    training = Training()
    with torch.no_grad():
        training.model.fc.weight.add_(1)  # as if rank 0 had sent others
    training.restore_state(None)
    assert_equal(floating(training.averaged.validated), floating(training.model))


def test_the_copy_lies_in_memory_as_the_model_and_is_neither_trained_nor_compiled():
    model = build_model("resnet8", 5, zero_gamma=False, seed=1)
    normalise_by_worker(model, [range(2)], 4)
    set_memory_format(model, channels_last=True)
    compile_stages(model, "default")
    copied = AveragedWeights(model, SETTINGS).validated
    assert model._compiled_call_impl is not None
    assert copied._compiled_call_impl is None
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    for ours, theirs in zip(copied.parameters(), model.parameters(), strict=True):
        assert ours.stride() == theirs.stride()
        assert ours.data_ptr() != theirs.data_ptr()
    assert {type(norm) for norm in batch_norms(copied)} == {WorkerBatchNorm2d}
    assert {norm.batch_per_worker for norm in batch_norms(copied)} == {4}


def test_without_it_the_model_itself_is_validated_and_nothing_is_saved():
    training = Training(SETTINGS.model_copy(update={"average": "none"}))
    list(training.steps(1))
    assert training.averaged.validated is training.model
    assert training.state()["averaged"] == {}
    old = {name: value for name, value in training.state().items() if name != "averaged"}
    training.restore_state(old)  # a checkpoint from before
