"""The two loops, in a world of one process."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import Settings
from hvd_utils.faults.heartbeat import COMPILING, COMPUTING
from hvd_utils.horovod_backend.flags import SharedFlags
from hvd_utils.horovod_backend.world import World
from hvd_utils.nn.compile_turns import CompileTurns
from hvd_utils.nn.ema import AveragedWeights
from hvd_utils.paper.logical_workers import passes
from hvd_utils.training.loops import train, validate
from hvd_utils.training.nonfinite import Guard, NonfiniteError
from hvd_utils.training.optimizer import build_optimizer
from hvd_utils.training.running_statistics import RunningStatistics
from hvd_utils.training.train_state import TrainState

WORLD = World(0, 1, 0, 1, "here", torch.device("cpu"), 1)
RECIPE = Settings(recipe="paper")


def state(model, optimizer, workers=1):
    guard = Guard("fp64", 1, WORLD.device)
    averaged, statistics = AveragedWeights(model, RECIPE), RunningStatistics(model, workers, 1)
    return TrainState(model, optimizer, guard, averaged, statistics)


def recipe(workers, minibatch, **options):
    batch = minibatch // workers
    return Settings(
        recipe="paper", workers=workers, batch_per_worker=batch, precision="fp64", **options
    )


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 7)).double()


def batches(count, size, seed=0):
    random = torch.Generator().manual_seed(seed)
    for _ in range(count):
        images = torch.randn(size, 3, 2, 2, generator=random, dtype=torch.float64)
        yield images, torch.randint(7, (size,), generator=random)


def run(
    model, optimizer, source, steps, workers, minibatch, rate=lambda step: 0.1, fuse=1, **options
):
    """Make the steps; return loss and wrong images of each."""
    return [
        totals.tolist()
        for totals in train(
            state(model, optimizer, workers), rate, source, steps,
            recipe=recipe(workers, minibatch, **options), passes=passes(range(workers), fuse),
            world=WORLD, flags=SharedFlags(1),
        )
    ]  # fmt: skip


def validated(model, source, rounds):
    return validate(model, source, rounds, precision="fp64", world=WORLD, flags=SharedFlags(1))


def test_accumulated_workers_make_the_step_of_one_large_minibatch():
    """Footnote 5: five workers of 4 images, one after the other, are one minibatch of 20."""
    accumulated, whole = linear(), linear()
    run(accumulated, build_optimizer(accumulated, RECIPE, 5), batches(15, 4), range(3), 5, 20)
    reference = torch.optim.SGD(
        [
            {"params": list(whole.parameters()), "weight_decay": 1e-4},
        ],
        lr=0.1, momentum=0.9, nesterov=True,
    )  # fmt: skip
    small = list(batches(15, 4))
    for step in range(3):
        images = torch.cat([images for images, _ in small[5 * step : 5 * step + 5]])
        labels = torch.cat([labels for _, labels in small[5 * step : 5 * step + 5]])
        reference.zero_grad()
        nn.functional.cross_entropy(whole(images), labels).backward()
        reference.step()
    for ours, theirs in zip(accumulated.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12)


def test_a_rank_that_waits_for_its_turn_to_compile_has_told_the_watchdog(tmp_path):
    told, before_turns = [], []

    class Turns(CompileTurns):
        def turn(self, shape):
            before_turns.append(told[-1])
            return super().turn(shape)

    model = linear()
    training = state(model, build_optimizer(model, RECIPE, 1))
    training.turns = Turns(tmp_path)
    steps = train(
        training, lambda step: 0.1, batches(2, 8), range(2), recipe=recipe(1, 8),
        passes=passes(range(1), 1), world=WORLD, flags=SharedFlags(1),
        heartbeat=lambda step, doing: told.append(doing),
    )  # fmt: skip
    assert len(list(steps)) == 2
    assert before_turns == [COMPILING, COMPUTING]


def test_label_smoothing_is_of_the_training_loss_alone():
    model, (images, labels) = linear(), next(batches(1, 8))
    smoothed = nn.functional.cross_entropy(model(images), labels, label_smoothing=0.3).item()
    errors = validated(model, iter([(images, labels)]), 1)
    optimizer = build_optimizer(model, RECIPE, 1)
    ((loss, wrong),) = run(model, optimizer, batches(1, 8), range(1), 1, 8, label_smoothing=0.3)
    assert loss == pytest.approx(smoothed)
    assert 100 * wrong / 8 == errors.top1


def test_the_first_loss_is_the_mean_over_the_minibatchs_images():
    model = linear()
    (images, labels), *_ = batches(1, 8)
    logits = model(images)
    expected = nn.functional.cross_entropy(logits, labels).item()
    wrong = (logits.argmax(dim=1) != labels).sum().item()
    ((loss, counted),) = run(
        model, build_optimizer(model, RECIPE, 1), batches(1, 8), range(1), 1, 8
    )
    assert loss == pytest.approx(expected)
    assert counted == wrong


def test_a_loss_that_is_not_finite_is_found_on_its_step_before_the_update():
    model = linear()
    optimizer = build_optimizer(model, RECIPE, 1)

    def source():
        for place, (images, labels) in enumerate(batches(6, 4)):
            yield (images * math.nan if place == 3 else images), labels

    with pytest.raises(NonfiniteError) as error:
        run(model, optimizer, source(), range(6), 1, 4)
    assert error.value.step == 3
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_a_gradient_that_is_not_finite_is_found_though_the_loss_is():
    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(_, images):
            return images.clone()

        @staticmethod
        def backward(_, gradient):
            return gradient * math.inf

    class Model(nn.Linear):
        def forward(self, images):
            return Steep.apply(super().forward(images.flatten(1)))

    model = Model(12, 7).double()
    with pytest.raises(NonfiniteError):
        run(model, build_optimizer(model, RECIPE, 1), batches(1, 4), range(1), 1, 4)


def test_a_flag_is_seen_after_its_step_and_breaks_validation_off():
    model, wanted = linear(), []
    flags = SharedFlags(1, stop=lambda: bool(wanted))
    steps = train(
        state(model, build_optimizer(model, RECIPE, 1)), lambda step: 0.1, batches(9, 4), range(9),
        recipe=recipe(1, 4), passes=[range(1)], world=WORLD, flags=flags,
    )  # fmt: skip
    next(steps)
    assert not flags["stop"]
    wanted.append("a signal")
    assert validate(model, batches(3, 4), 3, precision="fp64", world=WORLD, flags=flags) is None
    next(steps)
    assert flags["stop"]


def test_validation_counts_every_image_and_both_errors():
    class Ranked(nn.Linear):
        def forward(self, images):
            return torch.arange(7.0).expand(len(images), 7)  # class 6 first, then 5, 4, 3, 2

    labels = torch.tensor([6, 6, 5, 2, 1, 0, 0, 6])
    shards = [(torch.zeros(5, 3, 2, 2), labels[:5]), (torch.zeros(3, 3, 2, 2), labels[5:])]
    errors = validated(Ranked(1, 1), shards, 3)
    assert errors == (100 * 5 / 8, 100 * 3 / 8, 8)


def test_validation_of_some_classes_is_by_a_softmax_over_them():
    """As of ImageNet-5k (§5.3): labels count the 3 classes 4, 0 and 5; the others compete not."""

    class Ranked(nn.Linear):
        def forward(self, images):
            return torch.arange(7.0).expand(len(images), 7)

    batch = [(torch.zeros(4, 3, 2, 2), torch.tensor([2, 2, 0, 1]))]
    model, classes = Ranked(1, 1), np.array([4, 0, 5])
    errors = validate(
        model, batch, 1, precision="fp64", world=WORLD, flags=SharedFlags(1), classes=classes
    )
    assert errors == (50, 0, 4)
    assert validated(model, batch, 1) == (100, 50, 4)


def test_validation_uses_running_averages_and_leaves_them_alone():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 7)).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    validated(model, list(batches(2, 4)), 2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_validation_has_cudnn_search_no_kernels(monkeypatch):
    """Each of its shapes would cost seconds: batches of 100, the last one, and another side."""
    searches = []

    class Watched(nn.Linear):
        def forward(self, images):
            searches.append(torch.backends.cudnn.benchmark)
            return super().forward(images.flatten(1))

    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    validated(Watched(12, 7).double(), list(batches(2, 4)), 2)
    assert searches == [False, False]
    assert torch.backends.cudnn.benchmark


class Noisy(nn.Linear):
    """Draws as a functional dropout does, which no look at the modules would find."""

    def forward(self, images):
        return super().forward(nn.functional.dropout(images.flatten(1), 0.5))


def test_what_a_model_draws_depends_on_worker_and_step_alone():
    """Not on what was drawn before, nor on which workers went first in this process."""
    torch.manual_seed(0)
    whole, parts = Noisy(12, 7).double(), Noisy(12, 7).double()
    parts.load_state_dict(whole.state_dict())
    run(whole, build_optimizer(whole, RECIPE, 2), batches(12, 4), range(6), 2, 8)
    optimizer = build_optimizer(parts, RECIPE, 2)
    run(parts, optimizer, batches(12, 4), range(3), 2, 8)
    torch.manual_seed(99)
    run(parts, optimizer, itertools.islice(batches(12, 4), 6, None), range(3, 6), 2, 8)
    assert torch.equal(whole.weight, parts.weight)


def test_fused_workers_may_not_share_random_numbers():
    model = Noisy(12, 7).double()
    with pytest.raises(BadInput, match="draws random numbers.*--fuse-workers 1"):
        run(model, build_optimizer(model, RECIPE, 1), batches(1, 8), range(1), 2, 8, fuse=2)


def test_a_validation_in_which_no_image_can_be_read_is_no_figure():
    with pytest.raises(BadInput, match="no validation image can be read"):
        validated(linear(), iter([]), 2)
