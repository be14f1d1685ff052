"""What holds for all inputs, not for some: order, shares, windows, schedule and checkpoints."""

from __future__ import annotations

import math
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dali_pipeline.dataset.bad_images import BadImages
from dali_pipeline.dataset.index import Index, bad_image
from dali_pipeline.sampling.crops import Stream, central_placement, flips, training_windows
from dali_pipeline.sampling.image_size import MULTIPLE, ramp_side
from dali_pipeline.sampling.order import (
    VERSIONS,
    images_at,
    images_in_epoch,
    pass_images,
    worker_images,
)
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.command_line import load_settings
from hvd_utils.config.interval import Interval, parse
from hvd_utils.config.recipe import Recipe
from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend.environment import MB
from hvd_utils.horovod_backend.gradient_buckets import LAST_BUCKET_MB, buckets
from hvd_utils.paper.logical_workers import passes, share
from hvd_utils.paper.schedule import epoch_at, first_step, make_schedule
from hvd_utils.run.checkpoint import (
    checkpoint_path,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)

# The same examples every time, however slow the machine is.
settings.register_profile("repeatable", max_examples=60, deadline=None, derandomize=True)
settings.load_profile("repeatable")
FEW = settings(max_examples=15)

SEEDS = st.integers(0, 2**63 - 1)
COUNTS = st.integers(1, 500)


# Order and shares


ORDERS = st.sampled_from([*VERSIONS])


@given(SEEDS, st.integers(0, 1000), COUNTS, ORDERS)
def test_an_order_is_a_permutation(seed, epoch, images, order):
    ids = images_in_epoch(seed, epoch, np.arange(images), images, order)
    assert sorted(ids) == list(range(images))


@given(SEEDS, st.integers(1, 12), st.integers(1, 6), st.integers(0, 60), st.data())
def test_however_workers_are_shared_a_minibatch_is_the_same(seed, workers, batch, extra, data):
    order = data.draw(ORDERS)
    images = workers * batch + extra
    step = data.draw(st.integers(0, 10**6))
    processes = data.draw(st.integers(1, workers))
    fuse = data.draw(st.integers(1, workers))
    sizes = {"workers": workers, "batch": batch, "num_images": images, "order": order}
    whole = images_at(seed, step * workers * batch, workers * batch, images, order)[1]
    found = {}
    for rank in range(processes):
        for fused in passes(share(workers, rank, processes), fuse):
            _, ids = pass_images(seed, step, fused, **sizes)
            for place, worker in enumerate(fused):
                found[worker] = ids[place :: len(fused)]
                alone = worker_images(seed, step, worker, **sizes)[1]
                assert np.array_equal(found[worker], alone)
    assert np.array_equal(np.concatenate([found[worker] for worker in range(workers)]), whole)


@given(SEEDS, COUNTS, st.integers(1, 40), st.integers(1, 4), ORDERS)
def test_every_image_is_seen_once_an_epoch(seed, images, minibatch, epochs, order):
    steps = -(-epochs * images // minibatch)
    runs = [images_at(seed, step * minibatch, minibatch, images, order) for step in range(steps)]
    when, ids = (np.concatenate(part) for part in zip(*runs, strict=True))
    for epoch in range(epochs):
        assert sorted(ids[when == epoch]) == list(range(images))


@given(st.integers(1, 300), st.data())
def test_shares_are_a_partition_of_nearly_equal_parts(workers, data):
    processes = data.draw(st.integers(1, workers))
    shares = [share(workers, rank, processes) for rank in range(processes)]
    assert [worker for part in shares for worker in part] == list(range(workers))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    fuse = data.draw(st.integers(1, workers))
    for part in shares:
        made = passes(part, fuse)
        assert [worker for fused in made for worker in fused] == list(part)
        assert max(map(len, made)) <= fuse


# Windows


@given(
    SEEDS,
    st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=1, max_size=30),
    st.floats(0.001, 1),
    st.floats(1, 10),
)
def test_windows_lie_within_their_images_and_depend_on_nothing_else(seed, sizes, area, ratio):
    heights, widths = np.array(sizes, dtype=np.int32).T
    ids = np.arange(len(sizes)) * 7
    epochs = np.full(len(sizes), 3)
    windows = training_windows(Stream(seed, epochs, ids), heights, widths, area, ratio)
    assert (windows.top >= 0).all()
    assert (windows.left >= 0).all()
    assert (windows.height >= 1).all() or area < 1e-3
    assert (windows.top + windows.height <= heights).all()
    assert (windows.left + windows.width <= widths).all()
    some = slice(None, None, 2)
    stream = Stream(seed, epochs[some], ids[some])
    again = training_windows(stream, heights[some], widths[some], area, ratio)
    for whole, part in zip(windows, again, strict=True):
        assert np.array_equal(whole[some], part)
    mirrored = flips(Stream(seed, epochs, ids))
    assert set(mirrored.tolist()) <= {0, 1}
    assert np.array_equal(mirrored[some], flips(stream))


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 500), st.integers(0, 200))
def test_a_central_crop_fits_and_the_shorter_side_is_the_one_asked_for(height, width, crop, more):
    size, corner = central_placement(np.array([height]), np.array([width]), crop + more, crop)
    assert size.min() == crop + more
    assert (corner >= 0).all()
    assert (corner + crop <= size).all()


@given(st.integers(1, 20), st.integers(0, 20), st.integers(0, 30), st.integers(1, 30))
def test_sides_grow_with_the_epochs_and_are_multiples_or_an_end(first, more, begin, length):
    first, last = 16 * first, 16 * (first + more)
    sides = [ramp_side(epoch, first, last, (begin, begin + length)) for epoch in range(70)]
    assert all(a <= b for a, b in pairwise(sides))
    assert (sides[0], sides[-1]) == (first, last)
    assert all(side % MULTIPLE == 0 or side in (first, last) for side in sides)


# Schedule


@st.composite
def schedules(draw):
    """A recipe with the images of an epoch and of a minibatch."""
    minibatch = draw(st.integers(1, 9000))
    images = minibatch * draw(st.integers(1, 40)) + draw(st.integers(0, minibatch - 1))
    epochs = draw(st.integers(1, 90))
    recipe = Recipe(
        reference_rate=draw(st.floats(1e-4, 10)),
        reference_minibatch=draw(st.integers(1, 9000)),
        epochs=epochs,
        warmup=draw(st.sampled_from(["gradual", "constant", "none"])),
        warmup_epochs=draw(st.floats(0, epochs / 2)),
        decay=draw(st.sampled_from(["step", "cosine", "polynomial"])),
    )
    return recipe, images, minibatch


@given(schedules(), st.data())
def test_a_rate_is_a_function_of_the_step_within_its_bounds(case, data):
    recipe, images, minibatch = case
    schedule = make_schedule(recipe, images, minibatch)
    again = make_schedule(recipe, images, minibatch)
    last = first_step(recipe.epochs, images, minibatch)
    full = recipe.reference_rate * minibatch / recipe.reference_minibatch
    top = max(full, recipe.reference_rate) * (1 + 1e-12)
    steps = data.draw(st.lists(st.integers(0, max(0, last - 1)), max_size=20))
    for step in steps:
        assert 0 <= schedule(step) <= top
        assert schedule(step) == again(step)


@given(schedules())
def test_warmup_begins_at_the_reference_rate_and_rises_to_the_scaled_one(case):
    recipe, images, minibatch = case
    assume(minibatch > recipe.reference_minibatch)
    recipe = recipe.model_copy(update={"warmup": "gradual", "decay": "step", "decay_epochs": ()})
    schedule = make_schedule(recipe, images, minibatch)
    end = first_step(recipe.warmup_epochs, images, minibatch)
    full = recipe.reference_rate * minibatch / recipe.reference_minibatch
    rates = [schedule(step) for step in range(0, end + 2, max(1, end // 50))]
    assert all(a <= b * (1 + 1e-12) for a, b in pairwise(rates))
    if end > 1:
        assert schedule(0) == pytest.approx(recipe.reference_rate)
    assert schedule(end + 1) == pytest.approx(full)


@given(st.integers(1, 10**4), st.integers(0, 10**7), st.integers(0, 200))
def test_epochs_and_steps_are_one_anothers_inverse(minibatch, extra, epoch):
    images = minibatch + extra
    begin, end = (first_step(e, images, minibatch) for e in (epoch, epoch + 1))
    assert begin < end
    assert epoch_at(begin, images, minibatch) == epoch
    assert epoch_at(end - 1, images, minibatch) == epoch


# Sums, settings


@given(st.lists(st.integers(1, 40 * MB), min_size=1, max_size=60), st.floats(0.1, 100))
def test_buckets_hold_every_gradient_once_and_little_more_than_their_limit(sizes, limit):
    groups = buckets(list(enumerate(sizes)), limit)
    assert sorted(item for group in groups for item in group) == list(range(len(sizes)))
    assert all(groups)
    for group in groups:
        assert len(group) == 1 or sum(sizes[item] for item in group) <= limit * MB + 1
    ends = [item for group in groups for item in group]
    assert ends == sorted(ends, reverse=True)  # as backprop makes them
    assert LAST_BUCKET_MB > 0


@given(st.one_of(st.text(max_size=12), st.integers(), st.from_regex(r"\d{1,4} ?(s|min|h|steps?)?")))
def test_an_interval_is_understood_or_refused(text):
    try:
        found = parse(text)
    except ValueError:
        return
    assert isinstance(found, Interval)
    assert (found.steps is None) != (found.seconds is None)
    assert (found.steps or found.seconds) > 0


FLAGS = ("--epochs", "--seed", "--reference-rate", "--momentum", "--decay-epochs", "--workers")
FLAGS += ("--resolution", "--min-crop-area", "--checkpoint-every", "--stall-timeout", "--flip")
VALUES = st.one_of(st.integers(-(2**70), 2**70).map(str), st.floats().map(str), st.text(max_size=8))


@given(st.lists(st.tuples(st.sampled_from(FLAGS), VALUES), max_size=4))
def test_a_command_line_gives_settings_or_one_line(given_flags):
    arguments = [f"{flag}={value}" for flag, value in given_flags]
    try:
        found = load_settings(arguments, {})
    except BadInput:
        return
    assert isinstance(found, Settings)
    assert all(math.isfinite(v) for v in found.experiment().values() if isinstance(v, float))


# Checkpoints and bad images

TENSORS = st.builds(
    lambda kind, shape, seed: torch.randint(
        0, 100, shape, generator=torch.Generator().manual_seed(seed)
    ).to(kind),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool]),
    st.lists(st.integers(0, 4), max_size=3).map(tuple),
    st.integers(0, 100),
)
LEAVES = st.one_of(
    TENSORS, st.integers(-(2**60), 2**60), st.floats(allow_nan=False), st.text(max_size=5),
    st.none(), st.booleans(),
)  # fmt: skip
STATES = st.dictionaries(
    st.text(st.characters(categories=["L"]), min_size=1, max_size=5),
    st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=8),
    max_size=5,
)


def same(ours, theirs) -> bool:
    if isinstance(ours, torch.Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs and type(ours) is type(theirs)


@FEW
@given(STATES)
def test_what_is_saved_is_loaded(state):
    with tempfile.TemporaryDirectory() as folder:
        path = save_checkpoint(Path(folder), {**state, "step": 7}, keep=0)
        loaded = load_checkpoint(path)
    assert all(same(value, loaded[name]) for name, value in state.items())


@given(st.floats(0, 1, exclude_max=True), st.booleans(), st.integers(1, 255))
def test_a_damaged_file_is_refused_and_never_read_wrong(place, cut, change):
    state = {"step": 7, "weights": torch.arange(500.0)}
    with tempfile.TemporaryDirectory() as folder:
        path = save_checkpoint(Path(folder), state, keep=0)
        data = bytearray(path.read_bytes())
        where = int(place * len(data))
        if cut:
            del data[where:]
        else:
            data[where] ^= change
        path.write_bytes(data)
        try:
            loaded = load_checkpoint(path)
        except BadInput:
            return
        assert not cut
        assert loaded["step"] == 7  # what was hit is not read, as padding
        assert torch.equal(loaded["weights"], state["weights"])


@FEW
@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=8, unique=True), st.integers(0, 5))
def test_the_newest_few_are_kept_whatever_their_steps(steps, keep):
    with tempfile.TemporaryDirectory() as folder:
        for step in steps:
            save_checkpoint(Path(folder), {"step": step}, keep=keep)
        left = list_checkpoints(Path(folder))
        assert checkpoint_path(Path(folder), steps[-1]) in left
        assert len(left) == (min(keep, len(steps)) if keep else len(steps))


@given(st.integers(2, 200), st.sets(st.integers(0, 199), max_size=10), st.data())
def test_a_bad_image_is_replaced_by_the_next_good_one_for_whoever_reads_it(images, bad, data):
    bad = {image % images for image in bad}
    assume(len(bad) < images)
    names = np.array([b"a/%d.jpg" % image for image in range(images)])
    index = Index("/data", ("a",), names, np.zeros(images, np.int32))
    known = BadImages(index, skip=True)
    for image in bad:
        known.reasons[image] = bad_image(index, image, "broken").reason
    ids = np.array(data.draw(st.lists(st.integers(0, images - 1), min_size=1, max_size=20)))
    taken = known.substitutes(ids)
    for planned, used in zip(ids.tolist(), taken.tolist(), strict=True):
        assert used not in bad
        between = range(planned, used if used >= planned else used + images)
        assert all(image % images in bad for image in between)
    middle = len(ids) // 2
    parts = [known.substitutes(part) for part in (ids[:middle], ids[middle:])]
    assert np.array_equal(np.concatenate(parts), taken)
