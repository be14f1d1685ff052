"""What needs a CUDA device: decoding on it, and Horovod summing on it by NCCL."""

from __future__ import annotations

import gzip
import json
import time

import horovod.torch as hvd
import numpy as np
import pytest
import torch
import yaml
from support.launching import TINY, launch, train
from support.rounding import assert_modes_agree_but_for_rounding

from benchmarks.harness.loop import Loop
from dali_pipeline.benchmarking.jpegs import make_jpegs
from dali_pipeline.dataset.scan import scan_splits
from dali_pipeline.loading.decoding.by_dali import ByDali
from dali_pipeline.loading.decoding.crops import planned_crops
from dali_pipeline.loading.decoding.probe import DECODERS, probe
from dali_pipeline.loading.decoding.verdict import WAYS, describe
from dali_pipeline.loading.interface import STD
from dali_pipeline.loading.loader import make_loader
from dali_pipeline.sampling.plan import Plan
from hvd_utils.config.settings import Settings
from hvd_utils.faults.heartbeat import COMPUTING, FINISHING, READING
from hvd_utils.horovod_backend.environment import horovod_variables
from hvd_utils.horovod_backend.world import World
from hvd_utils.inspect.compare import differences, newest
from hvd_utils.nn.ema import AveragedWeights
from hvd_utils.nn.models import build_model
from hvd_utils.paper.logical_workers import passes
from hvd_utils.preflight.child import Child
from hvd_utils.run.event_log import read_events
from hvd_utils.timing.stopwatch import DeviceStopwatch

pytestmark = pytest.mark.gpu
COMPILES = 400  # seconds that a run may take which compiles, cold
SETTINGS = Settings(
    recipe="demo", workers=2, batch_per_worker=4, resolution=32, val_resize=36, val_batch=3
)

WORLD = World(0, 1, 0, 1, "here", torch.device("cuda", 0), 2)


GROWING = {
    "resolution": 96, "resolution_from": 32, "resolution_ramp": (0, 2),
    "val_resolution": 40, "val_resize": 44,
}  # fmt: skip


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """256 crops of made-up JPEGs of ImageNet's sizes, and their index."""
    folder = tmp_path_factory.mktemp("jpegs")
    make_jpegs(folder, 256, 8)
    splits = scan_splits(folder)
    return splits, planned_crops(splits, SETTINGS)


@pytest.fixture(scope="module")
def verdicts(crops):
    """What the probe finds of each way of decoding on this GPU; each in a child process."""
    found = probe(crops[1], DECODERS, 0, threads=4)
    print(describe("cpu", [("here", found)]))
    return found


@pytest.fixture(params=WAYS)
def way(request, verdicts):
    """Each way of decoding that works here; the reason why the others do not."""
    if not verdicts[request.param].passed:
        pytest.skip(f"--decode {request.param} fails here: {verdicts[request.param].reason}")
    return request.param


def test_the_probe_passes_or_says_which_way_failed(verdicts):
    """Decoding by the CPU has to work. ``-rs`` shows why another way does not."""
    assert verdicts["cpu"].passed, verdicts["cpu"].reason
    assert set(verdicts) == set(WAYS)
    assert all(verdict.rate > 0 for verdict in verdicts.values() if verdict.passed)


@pytest.mark.parametrize("whole", [False, True], ids=["crops", "whole"])
def test_an_image_is_the_same_in_any_batch_and_order(crops, way, whole):
    """Else its pixels would depend on the number of processes and on --fuse-workers."""
    decoder = ByDali(way, 0, threads=4)
    made, turned = decoder.images(crops[1], 256, whole), crops[1].part(slice(None, None, -1))
    assert np.array_equal(made, decoder.images(crops[1], 32, whole))
    assert np.array_equal(made, decoder.images(turned, 256, whole)[::-1])
    assert np.array_equal(made, decoder.images(turned, 32, whole)[::-1])


def test_the_loader_delivers_the_same_pixels_in_one_large_batch_or_several(crops, way):
    made = []
    for fuse in (1, 8):
        settings = SETTINGS.model_copy(
            update={"workers": 8, "batch_per_worker": 32, "resolution": 224, "decode": way}
        )
        plan = Plan(*crops[0], settings, passes(range(8), fuse), 0, 1)
        loader = make_loader("dali", plan, device=torch.device("cuda", 0), threads=4)
        made.append(torch.cat([images.cpu() for images, _ in loader.training(0, 1)]))
    assert torch.equal(*made)


def test_the_job_decodes_by_what_passed(tiny_data, tmp_path, way):
    options = ("--device", "cuda", "--decode", way, *TINY)
    ended = train("--data", tiny_data, "--output", tmp_path, *options, by="python", timeout=300)
    assert ended.code == 0, ended.output
    assert yaml.safe_load((tmp_path / "settings.yaml").read_text())["decode"] == way


def load(data, device, changes):
    settings = SETTINGS.model_copy(update=changes)
    plan = Plan(*scan_splits(data), settings, [range(1), range(1, 2)], 0, 1)
    loader = make_loader("dali", plan, device=torch.device(device), threads=2)
    return list(loader.training(0, 9)), list(loader.validation())


AUGMENTED = {"augment": "trivial", "erase": 0.5, "mixup": 0.2, "cutmix": 1.0}


@pytest.mark.parametrize(
    "changes", [{}, GROWING, AUGMENTED], ids=["one side", "growing", "augmented"]
)
def test_dali_makes_on_the_gpu_what_it_makes_on_the_cpu(tiny_data, changes, way):
    """nvJPEG rounds otherwise than libjpeg-turbo; in units of 0 to 255."""
    deviation = torch.tensor(STD).view(3, 1, 1) * 255
    changes = {**changes, "decode": way}
    made = (load(tiny_data, device, changes) for device in ("cuda:0", "cpu"))
    for gpu, cpu in zip(*made, strict=True):
        for (images, labels), (expected, expected_labels) in zip(gpu, cpu, strict=True):
            assert images.device.type == labels.device.type == "cuda"
            assert torch.allclose(labels.cpu(), expected_labels)
            difference = ((images.cpu() - expected) * deviation).abs()
            assert difference.mean() < 2.0


def test_batches_stay_whole_until_a_gpu_that_lags_has_read_them(tiny_data):
    """They lie in DALI's memory, and the host is done with them long before."""
    settings = SETTINGS.model_copy(update={"prefetch": 1})
    plan = Plan(*scan_splits(tiny_data), settings, [range(1), range(1, 2)], 0, 1)
    loader = make_loader("dali", plan, device=torch.device("cuda", 0), threads=2)
    matrix, sums = torch.ones(8192, 8192, device="cuda"), []
    for products in (0, 40):
        read = []
        for images, _ in loader.training(0, 9):
            for _ in range(products):
                matrix @ matrix
            read.append(images.double().sum())
            if not products:  # what is expected
                torch.cuda.synchronize()
            del images
        sums.append(torch.stack(read).cpu())
    assert torch.equal(*sums)


@pytest.mark.parametrize("grouped", [False, True])
def test_horovod_sums_on_the_gpu_by_nccl(grouped, monkeypatch):
    """What is queued after ``synchronize`` finds the sum of what was queued before it began."""
    for name, value in horovod_variables(SETTINGS, cuda=True, elastic=False).items():
        monkeypatch.setenv(name, value)
    hvd.init()
    assert hvd.nccl_built()
    matrix = torch.full((4096, 4096), 1 / 4096, device="cuda")
    for _ in range(3):
        late = torch.ones_like(matrix)
        for _ in range(20):
            late = late @ matrix
        handle = (
            hvd.grouped_allreduce_async_([late, late[0].clone()], op=hvd.Sum)
            if grouped
            else hvd.allreduce_async_(late, op=hvd.Sum)
        )
        hvd.synchronize(handle)
        assert torch.equal(late.mul(2), torch.full_like(late, 2 * hvd.size()))


def test_the_job_trains_on_the_gpu(tiny_data, tmp_path):
    ended = train("--data", tiny_data, "--output", tmp_path, "--device", "cuda", *TINY, by="python")
    assert ended.code == 0, ended.output
    epochs = [event for event in read_events(tmp_path) if event["event"] == "epoch"]
    assert [epoch["val_images"] for epoch in epochs] == [7, 7]


@pytest.mark.parametrize(
    "how",
    [
        ("--optimizer", "sgd"),
        ("--optimizer", "lars"),
        ("--channels-last", "--batch-norm", "triton"),
        ("--channels-last", "--batch-norm", "torch"),
    ],
)
def test_fused_workers_make_the_same_run_on_the_gpu(tiny_data, tmp_path, how):
    ends = []
    for fuse in (1, 3):
        options = ("--workers", 3, "--precision", "fp64", "--fuse-workers", fuse, *how)
        run = tmp_path / str(fuse)
        ended = train("--data", tiny_data, "--output", run, *options, *TINY, by="python")
        assert ended.code == 0, ended.output
        ends.append(newest(run))
    assert max(differences(*ends).values()) < 1e-8


def test_tritons_batch_norm_makes_the_same_run(tiny_data, tmp_path):
    ends = []
    for kernels in ("triton", "torch"):
        options = ("--workers", 3, "--precision", "fp64", "--channels-last", "--no-zero-gamma")
        run = tmp_path / kernels
        given = ("--data", tiny_data, "--output", run, "--batch-norm", kernels)
        ended = train(*given, *options, *TINY, by="python")
        assert ended.code == 0, ended.output
        ends.append(newest(run))
    assert 0 < max(differences(*ends).values()) < 1e-8


def test_the_stopwatch_counts_what_delays_the_gpu_not_what_the_host_does():
    """Images that are late keep it idle only where it is done with what was queued before."""
    watch, size = DeviceStopwatch(), 8192
    matrix = torch.ones(size, size, device="cuda")
    torch.cuda.synchronize()
    for doing, host_seconds, products in (
        (READING, 0.2, 0),  # nothing is queued: idle for so long
        (COMPUTING, 0.0, 40),  # queued at once
        (READING, 0.001, 0),  # reads while the device still computes
        (COMPUTING, 0.0, 1),
        (FINISHING, 0.5, 0),
    ):
        watch.switch_to(doing)
        time.sleep(host_seconds)
        for _ in range(products):
            matrix @ matrix
    torch.cuda.synchronize()
    data, compute, allreduce = watch.read()
    assert 0.19 < data < 0.5
    assert compute > 0.05  # 40 products of 1.1e12 operations each
    assert allreduce == 0


def test_the_pipeline_is_measured_on_the_gpu(tmp_path):
    """Every stage and way; ``python -m dali_pipeline.benchmark`` gives the figures."""
    figures, names = tmp_path / "figures.json", {"decode", "augment", "full"}
    on_gpu = {"full_gpu", "full_hardware"}
    options = ("--images", "64", "--batch", "16", "--rounds", "1", "--seconds", "0.5")
    rows = ("--only", ",".join(names | on_gpu), "--device", "cuda", "--json", str(figures))
    ended = launch(["-m", "dali_pipeline.benchmark", *options, *rows], by="python", timeout=400)
    assert ended.code == 0, ended.output
    found = json.loads(figures.read_text())
    assert set(found["images_per_second"]) == names | on_gpu - set(found["skipped"])
    assert "is the quickest: cpu feeds" in ended.output


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_every_precision_trains_about_alike_compiled_or_not(tiny_data, tmp_path, precision):
    modes = ("default", "cudagraphs")
    assert_modes_agree_but_for_rounding(tiny_data, tmp_path, "cuda", precision, modes)


def test_cuda_graphs_accumulate_the_gradients_of_several_passes(tiny_data, tmp_path):
    """Each pass writes its gradients to the same memory."""
    ends = []
    for mode in ("none", "cudagraphs"):
        options = ("--workers", 3, "--fuse-workers", 1, "--compile", mode, "--no-zero-gamma")
        run = tmp_path / mode
        where = ("--data", tiny_data, "--output", run)
        ended = train(*where, *options, *TINY, by="python", timeout=COMPILES)
        assert ended.code == 0, ended.output
        ends.append(newest(run))
        skips = [event for event in read_events(run) if event["event"] == "cudagraph_skips"]
        assert not skips, skips
    assert differences(*ends)["weights"] < 1e-3


def test_preflight_sums_by_nccl():
    """One rank, with itself; two would need a second GPU."""
    child = Child()
    try:
        settings = SETTINGS.model_copy(update={"device": "cuda"}).model_dump(mode="json")
        place = {"rank": 0, "local_rank": 0, "local_size": 1}
        met = child.ask("meet", 120, settings=settings, place=place, shared=True)
        seconds = child.ask(
            "sum", 120, settings=settings, place=place, groups=[[0]], meetings=[met],
            repetitions=3, size=100_000_000,
        )  # fmt: skip
    finally:
        child.close()
    assert seconds > 0


def test_the_host_waits_for_nothing_in_a_step():
    """PyTorch raises where it would."""
    hvd.init()
    loop = Loop(SETTINGS.model_copy(update={"loader": "synthetic"}), 2, WORLD)
    loop.run(5)
    torch.cuda.set_sync_debug_mode("error")
    try:
        loop.queue(10)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_averaging_waits_for_nothing_and_is_that_of_the_cpu():
    recipe, ends = SETTINGS.model_copy(update={"average": "ema"}), []
    for device in ("cuda", "cpu"):
        model = build_model("resnet8", 5, zero_gamma=True, seed=1).to(device)
        averaged, made = AveragedWeights(model, recipe), torch.tensor([True, False, True])
        made = made.to(device)
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            for step in range(3):
                with torch.no_grad():
                    model.fc.weight.add_(step)
                averaged.update(step, made[step])
        finally:
            torch.cuda.set_sync_debug_mode("default")
        ends.append(averaged.state_dict()["fc.weight"].cpu())
    assert torch.allclose(*ends)


def test_the_gpu_benchmark_measures_every_case(tmp_path):
    figures = tmp_path / "figures.json"
    options = ("--quick", "--json", str(figures), "--plot", str(tmp_path / "figures.png"))
    ended = launch(["-m", "benchmarks.gpu", *options], by="python", timeout=COMPILES)
    found = json.loads(figures.read_text())
    # A decoder that crashes on this card is told, and no fault of the benchmark.
    assert all("decode" in case for case in found["left_out"]), ended.output
    assert ended.code == bool(found["left_out"]), ended.output
    assert found["cases"]["bf16, n = 32"]["memory"] > 0
    assert found["cases"]["bf16, n = 32"]["sm_mhz"] > 0
    assert found["planner"]["images_per_step"] == 32


def test_a_profile_has_the_gpus_kernels_and_the_stopwatchs_parts(tiny_data, tmp_path):
    options = ("--data", tiny_data, *TINY, "--output", tmp_path, "--profile", "2-3")
    ended = train(*options)
    assert ended.code == 0, ended.output
    with gzip.open(tmp_path / "profile/steps-2-3/rank-0.json.gz") as file:
        events = json.load(file)["traceEvents"]
    assert any(event.get("cat") == "kernel" for event in events)
    assert {"data", "compute", "allreduce"} <= {event["name"] for event in events}
