"""What a GPU's loader does, as far as a CPU can run it."""

import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nvidia.dali import Pipeline
from nvidia.dali.backend import GetSchema
from support.loaders import CPU, GROWING, STEPS, assert_alike, plan_for

from dali_pipeline.dataset.index import synthetic_index
from dali_pipeline.loading.dali import graph
from dali_pipeline.loading.dali.loader import DaliLoader, largest_image
from dali_pipeline.loading.to_device import HeldBatches, current_stream
from hvd_utils.nn.precision import as_input


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


class Built(Exception):
    """A pipeline was asked for."""


@pytest.mark.parametrize(
    ("changes", "largest", "half"),
    [
        ({"decode": "cpu", "precision": "fp16"}, (0, 0), True),
        ({"decode": "gpu", "precision": "bf16"}, (6430, 5980), False),  # ImageNet's
        ({"decode": "gpu", "largest_height": 500, "largest_width": 375}, (500, 375), False),
        ({"decode": "cpu", "precision": "fp16", "mixup": 0.2}, (0, 0), False),
    ],
)
def test_training_has_buffers_for_the_largest_image_and_16_bits_where_they_are_all(
    tiny_data, monkeypatch, changes, largest, half
):
    """Validation's buffers may grow."""
    targets = []

    def build(feed, target, **options):
        targets.append(target)
        raise Built

    monkeypatch.setattr("dali_pipeline.loading.dali.loader.training_graph", build)
    monkeypatch.setattr("dali_pipeline.loading.dali.loader.validation_graph", build)
    loader = DaliLoader(plan_for(tiny_data, **changes), torch.device("cuda", 0), threads=1)
    for batches in (loader.training(0, 1), loader.validation()):
        with pytest.raises(Built):
            next(batches)
    training, validation = targets
    assert (training.decode, training.largest, training.half) == (changes["decode"], largest, half)
    assert (validation.largest, validation.half) == ((0, 0), half)


def test_what_is_held_is_let_go_of_where_the_gpu_fails(monkeypatch):
    held = HeldBatches()
    batch = weakref.ref(held.hold(torch.ones(1)))

    def fails(held):
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(HeldBatches, "_mark", fails)
    with pytest.raises(RuntimeError, match="CUDA error"):
        held.clear()
    assert batch() is None


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
