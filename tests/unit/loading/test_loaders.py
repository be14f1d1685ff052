"""The loaders carry out the same plan: the same images, crops and labels, in the same order."""

import shutil
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nvidia.dali import Pipeline
from nvidia.dali.backend import GetSchema
from support.images import write_jpegs

from dali_pipeline import prepare
from dali_pipeline.dataset.index import synthetic_index
from dali_pipeline.dataset.index_file import open_splits
from dali_pipeline.dataset.scan import scan_splits
from dali_pipeline.loading.dali import graph
from dali_pipeline.loading.dali.loader import DaliLoader, largest_image
from dali_pipeline.loading.interface import STD
from dali_pipeline.loading.loader import make_loader
from dali_pipeline.loading.to_device import HeldBatches, current_stream
from dali_pipeline.sampling.plan import Plan
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import Settings
from hvd_utils.nn.precision import as_input
from hvd_utils.paper.logical_workers import passes, share

CPU = torch.device("cpu")
SETTINGS = Settings(
    recipe="demo", workers=2, batch_per_worker=4, resolution=32, val_resize=36, val_batch=3
)
# Steps of 8 images of 30: the second epoch begins at step 4, the third at step 8.
GROWING = {
    "resolution": 96, "resolution_from": 32, "resolution_ramp": (0, 2),
    "val_resolution": 40, "val_resize": 44,
}  # fmt: skip
STEPS = range(3, 9)


def plan_for(data, *, mine=range(2), fuse=1, rank=0, size=1, **changes):
    settings = SETTINGS.model_copy(update=changes)
    return Plan(*scan_splits(data), settings, passes(mine, fuse), rank, size)


def load(kind, plan, first=0, last=3):
    loader = make_loader(kind, plan, device=CPU, threads=1)
    return list(loader.training(first, last)), list(loader.validation())


@pytest.fixture(scope="module")
def both(tiny_data):
    return {kind: load(kind, plan_for(tiny_data)) for kind in ("dali", "torchvision")}


@pytest.fixture(scope="module")
def growing(tiny_data):
    """Batches of three sides, where one minibatch holds images of two epochs."""
    plan = plan_for(tiny_data, **GROWING)
    return {kind: load(kind, plan, STEPS[0], STEPS[-1] + 1) for kind in ("dali", "torchvision")}


def assert_alike(ours, theirs, mean, most):
    """Compare training and validation batches; differences are in units of 0 to 255."""
    deviation = torch.tensor(STD).view(3, 1, 1) * 255
    for part in (0, 1):
        for (images, labels), (expected, expected_labels) in zip(
            ours[part], theirs[part], strict=True
        ):
            assert torch.equal(labels, expected_labels)
            assert images.is_contiguous(memory_format=torch.channels_last)
            difference = ((images - expected) * deviation).abs()
            assert difference.mean() < mean
            assert difference.max() < most


@pytest.mark.parametrize("sides", ["both", "growing"])
def test_dali_decodes_what_torchvision_decodes_image_by_image(request, sides):
    """PyTorch's filter rounds otherwise than PIL's, see test_formats.py."""
    made = request.getfixturevalue(sides)
    assert_alike(made["dali"], made["torchvision"], 0.3, 2.5)


def test_every_batch_has_the_side_of_its_step(tiny_data, growing):
    synthetic = load("synthetic", plan_for(tiny_data, **GROWING), STEPS[0], STEPS[-1] + 1)
    for training, validation in (*growing.values(), synthetic):
        sides = [images.shape[2:] for images, _ in training]  # two workers a step
        assert sides == 2 * [(32, 32)] + 8 * [(64, 64)] + 2 * [(96, 96)]
        assert {images.shape[1:] for images, _ in validation} == {(3, 40, 40)}


def test_a_run_can_begin_in_the_middle_of_the_ramp(tiny_data, growing):
    part, _ = load("dali", plan_for(tiny_data, **GROWING), 7, 9)
    for (images, _), (expected, _) in zip(part, growing["dali"][0][8:], strict=True):
        assert torch.equal(images, expected)


def test_batches_have_the_shape_and_type_that_the_model_takes(both):
    for training, validation in both.values():
        assert [images.shape for images, _ in training] == [(4, 3, 32, 32)] * 6
        assert [len(images) for images, _ in validation] == [3, 3, 1]
        assert all(
            images.is_contiguous(memory_format=torch.channels_last)
            for images, _ in training + validation
        )
        assert {images.dtype for images, _ in training + validation} == {torch.float32}
        assert {labels.dtype for _, labels in training + validation} == {torch.int64}


def test_dali_batches_are_not_overwritten_by_later_ones(tiny_data):
    loader = make_loader("dali", plan_for(tiny_data), device=CPU, threads=1)
    kept, copies = [], []
    for images, _ in loader.training(0, 10):
        kept.append(images)
        copies.append(images.clone())
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


@pytest.mark.parametrize("kind", ["dali", "torchvision", "synthetic"])
def test_a_run_can_begin_at_any_step(tiny_data, both, kind):
    whole = both.get(kind) or load(kind, plan_for(tiny_data))
    part, _ = load(kind, plan_for(tiny_data), first=1, last=2)
    for (images, labels), (expected, expected_labels) in zip(part, whole[0][2:4], strict=True):
        assert torch.equal(labels, expected_labels)
        assert torch.equal(images, expected)


@pytest.mark.parametrize("kind", ["dali", "torchvision", "synthetic"])
def test_a_fused_pass_holds_what_its_workers_would_see_alone(tiny_data, kind):
    alone, _ = load(kind, plan_for(tiny_data, workers=3, mine=range(3)))
    fused, _ = load(kind, plan_for(tiny_data, workers=3, mine=range(3), fuse=2))
    assert [len(images) for images, _ in fused] == [4, 8] * 3  # passes of 1 and 2 workers
    for step in range(3):
        (first, _), (images, labels) = fused[2 * step : 2 * step + 2]
        assert torch.equal(first, alone[3 * step][0])
        for place in (0, 1):
            expected, expected_labels = alone[3 * step + 1 + place]
            assert torch.equal(images[place::2], expected)
            assert torch.equal(labels[place::2], expected_labels)


def test_processes_see_the_parts_of_the_same_minibatch(tiny_data, both):
    second, _ = load("dali", plan_for(tiny_data, mine=range(1, 2), rank=1, size=2))
    for (images, labels), (expected, expected_labels) in zip(
        second, both["dali"][0][1::2], strict=True
    ):
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)


def test_a_crop_belongs_to_the_image_and_the_epoch_not_to_the_worker(tiny_data):
    """However a minibatch of 8 is split, and whatever was planned before."""
    whole = plan_for(tiny_data, workers=1, batch_per_worker=8, mine=range(1))
    parts = plan_for(tiny_data, workers=4, batch_per_worker=2, mine=range(4))
    for step in (5, 0):  # step 3 opens the second epoch: 30 images
        expected = whole.training_batch(step, range(1))
        batches = [parts.training_batch(step, fused) for fused in parts.passes]
        assert np.array_equal(np.concatenate([batch.ids for batch in batches]), expected.ids)
        assert np.array_equal(np.concatenate([b.flips for b in batches]), expected.flips)
        for ours, theirs in zip(
            zip(*(batch.windows for batch in batches), strict=True), expected.windows, strict=True
        ):
            assert np.array_equal(np.concatenate(ours), theirs)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("stop", [0, 1, 2])
def test_no_image_is_lost_or_doubled_for_any_world_and_resume_point(tiny_data, size, stop):
    """Three minibatches of 20 are two epochs of 30 images."""
    seen = []
    for first, last in ((0, stop), (stop, 3)):
        for rank in range(size):
            plan = plan_for(
                tiny_data, workers=5, mine=share(5, rank, size), fuse=2, rank=rank, size=size
            )
            for place in plan.training_places(first, last):
                seen += list(zip(*plan.training_ids(*place), strict=True))
    assert sorted(seen) == [(epoch, image) for epoch in range(2) for image in range(30)]


@pytest.mark.parametrize("size", [1, 2, 4, 9])
def test_validation_shards_hold_every_image_once(tiny_data, size):
    plans = [plan_for(tiny_data, rank=rank, size=size) for rank in range(size)]
    seen = [image for plan in plans for ids in plan.validation_ids() for image in ids]
    assert sorted(seen) == list(range(7))


def test_an_empty_validation_shard_yields_nothing(tiny_data):
    for kind in ("dali", "torchvision", "synthetic"):
        _, validation = load(kind, plan_for(tiny_data, rank=8, size=9), last=1)
        assert validation == []


def test_validation_can_be_run_again_and_again(tiny_data):
    loader = make_loader("dali", plan_for(tiny_data), device=CPU, threads=1)
    first, second = list(loader.validation()), list(loader.validation())
    assert len(first) == 3
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", ["dali", "torchvision"])
def test_a_broken_image_is_named(tmp_path, kind):
    write_jpegs(tmp_path / "train", {"ant": 8})
    write_jpegs(tmp_path / "val", {"ant": 1})
    bad = tmp_path / "train" / "ant" / "003.JPEG"
    content = bad.read_bytes()
    bad.write_bytes(content[:200])  # the header is whole, the picture is not
    with pytest.raises(BadInput, match="cannot read image .*003.JPEG"):
        load(kind, plan_for(tmp_path, workers=1, batch_per_worker=8, mine=range(1)), last=1)


def test_a_minibatch_larger_than_the_training_set_is_refused(tiny_data):
    with pytest.raises(BadInput, match="16 workers of 4 images is more than the 30"):
        plan_for(tiny_data, workers=16)


def test_synthetic_images_need_no_files_and_are_planned_like_others():
    index = synthetic_index(1000, 10)
    plan = Plan(index, index, SETTINGS, passes(range(2), 1), 0, 1)
    training, validation = load("synthetic", plan)
    assert training[0][0].shape == (4, 3, 32, 32)
    assert np.array_equal(training[0][1], index.labels[plan.training_ids(0, range(1))[1]])
    assert sum(len(labels) for _, labels in validation) == 1000


class Mark:
    """An event that a GPU passes when it is asked ``asked`` times, or waited for."""

    def __init__(self, asked: int = 1) -> None:
        self.asked = asked
        self.waited_for = False

    def query(self) -> bool:
        self.asked -= 1
        return self.asked <= 0

    def synchronize(self) -> None:
        self.waited_for = True


def test_a_batch_is_held_until_the_gpu_has_read_it(monkeypatch):
    """Its memory is DALI's, which writes there again as soon as nobody holds it."""
    marks = iter([Mark(1), Mark(3), Mark(1), Mark(1), Mark(1)])
    monkeypatch.setattr(HeldBatches, "_mark", lambda held: next(marks))
    held, alive, seen = HeldBatches(), [], []
    for number in range(6):
        batch = torch.full((1,), float(number))
        alive.append(weakref.ref(held.hold(batch)))
        del batch
        seen.append([n for n, ref in enumerate(alive) if ref() is not None])
    assert seen == [[0], [1], [1, 2], [1, 2, 3], [4], [5]]


def test_no_batch_is_held_when_a_loader_ends_and_the_gpu_has_passed_all(monkeypatch):
    marks = [Mark(9), Mark(9)]
    queue = iter(marks)
    monkeypatch.setattr(HeldBatches, "_mark", lambda held: next(queue))
    held, alive = HeldBatches(), []
    for number in range(2):
        alive.append(weakref.ref(held.hold(torch.full((1,), float(number)))))
    held.clear()
    assert [ref() for ref in alive] == [None, None]
    assert all(mark.waited_for for mark in marks)


@pytest.mark.parametrize("end", ["read to the end", "closed early"])
def test_a_loader_that_ends_holds_nothing(tiny_data, as_on_a_gpu, monkeypatch, end):
    cleared = []
    monkeypatch.setattr(HeldBatches, "clear", lambda held: cleared.append(held))
    batches = as_on_a_gpu(tiny_data).training(0, 3)
    if end == "closed early":
        next(batches)
        batches.close()
    else:
        list(batches)
    assert len(cleared) == 1


def test_dali_gets_the_stream_that_reads_its_batches(monkeypatch):
    """Without one the host waits for each batch; DALI takes 0, the default stream, for none."""
    streams = {"cuda:0": SimpleNamespace(cuda_stream=0), "cuda:1": SimpleNamespace(cuda_stream=7)}
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: streams[str(device)])
    assert current_stream(torch.device("cuda", 0)) == 1
    assert current_stream(torch.device("cuda", 1)) == 7
    assert current_stream(CPU) is None


def test_batches_are_asked_for_on_the_trainers_stream(tiny_data, as_on_a_gpu, monkeypatch):
    asked, run = [], Pipeline.run
    monkeypatch.setattr("dali_pipeline.loading.dali.loader.current_stream", lambda device: 7)

    def noted(pipeline, stream=None):
        asked.append(stream)
        return run(pipeline)

    monkeypatch.setattr(Pipeline, "run", noted)
    list(as_on_a_gpu(tiny_data).training(0, 1))
    assert set(asked) == {7}


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Makes a loader that does all of a GPU's work that a CPU can do."""
    monkeypatch.setattr(HeldBatches, "_mark", lambda held: Mark())

    def make(data, **changes):
        loader = DaliLoader(plan_for(data, **changes), CPU, threads=1)
        loader._target, loader._cpu_transforms = loader._target._replace(on_gpu=True), None
        return loader

    return make


@pytest.mark.parametrize(
    ("sides", "changes", "steps"), [("both", {}, range(3)), ("growing", GROWING, STEPS)]
)
def test_the_gpus_graph_makes_the_same_images_as_far_as_a_cpu_can_run_it(
    tiny_data, request, as_on_a_gpu, sides, changes, steps
):
    """All of it but nvJPEG: DALI's own resize, mirror, crop and normalisation, channels last."""
    loader = as_on_a_gpu(tiny_data, **changes)
    made = (list(loader.training(steps[0], steps[-1] + 1)), list(loader.validation()))
    assert_alike(made, request.getfixturevalue(sides)["torchvision"], 1.0, 16)


def test_images_in_16_bits_are_those_of_32_rounded(tiny_data, as_on_a_gpu):
    """As fp16's autocast would round them before the first convolution."""
    loaders = [as_on_a_gpu(tiny_data) for _ in range(2)]
    loaders[1]._target = loaders[1]._target._replace(half=True)
    whole, half = ([*made.training(0, 3), *made.validation()] for made in loaders)
    assert len(whole) == len(half) > 3
    for (images, _), (rounded, _) in zip(whole, half, strict=True):
        assert rounded.dtype == torch.float16
        assert torch.equal(as_input(images, torch.float32, "fp16").half(), rounded)
        assert as_input(rounded, torch.float32, "fp16") is rounded
        assert as_input(rounded, torch.float32, "bf16").dtype == torch.float32


@pytest.mark.parametrize(("decode", "share"), [("gpu", 0), ("hardware", 1)])
def test_the_decoder_of_a_gpu_is_given_what_it_takes(decode, share):
    """Arguments of the mixed decoder are those that DALI knows; all images by one decoder."""
    options = graph._decoder(graph.Target(True, decode, 32, True, largest=(6430, 5980)))
    assert options.pop("device") == "mixed"
    assert options["hw_decoder_load"] == share
    assert options["device_memory_padding"] >= 211_025_920  # NVIDIA's for ImageNet's largest
    assert options["host_memory_padding"] >= 140_544_512
    for name in ("decoders__Image", "decoders__ImageSlice"):
        assert set(options) <= set(GetSchema(name).GetArgumentNames())


@pytest.mark.parametrize("decode", ["cpu", "gpu", "hardware"])
def test_dali_takes_the_gpus_graphs_up_to_where_it_needs_a_driver(decode):
    """Operators and arguments are those that DALI knows; nothing goes back to the CPU."""
    target = graph.Target(True, decode, 32, True, largest=(500, 375))
    for make in (graph.training_graph, graph.validation_graph):
        pipeline = make([], target, batch_size=2, num_threads=1, device_id=0, exec_dynamic=True)
        pipeline._build_graph()  # what ``build`` does first
        devices = {op.name.strip("_").split("_")[0]: op.outputs[0].device for op in pipeline._ops}
        decoder = {"ImageSlice", "Image"} & devices.keys()
        assert [devices[name] for name in decoder] == ["cpu" if decode == "cpu" else "gpu"]
        assert devices["Resize"] == devices["CropMirrorNormalize"] == "gpu"


def test_buffers_are_made_for_the_largest_image():
    index = synthetic_index(3, 2)
    assert largest_image(index, None, None) == (6430, 5980)  # ImageNet's
    sizes = {"heights": np.array([3, 9, 4]), "widths": np.array([7, 5, 8])}
    prepared = replace(index, **sizes)
    assert largest_image(prepared, None, None) == (9, 8)
    assert largest_image(prepared, 0, 20) == (0, 20)
    assert graph._buffers(0, 20) == {}


def test_a_packed_set_is_read_like_the_files_it_was_made_of(tiny_data, both, tmp_path):
    folder, packed = tmp_path / "loose", tmp_path / "packed"
    shutil.copytree(tiny_data, folder)
    prepare.main([str(folder), "--pack", str(packed), "--processes", "1"])
    plan = Plan(*open_splits(packed), SETTINGS, passes(range(2), 1), 0, 1)
    assert plan.train.packed
    for ours, theirs in zip(load("dali", plan), both["dali"], strict=True):
        for (images, labels), (expected, expected_labels) in zip(ours, theirs, strict=True):
            assert torch.equal(images, expected)
            assert torch.equal(labels, expected_labels)
