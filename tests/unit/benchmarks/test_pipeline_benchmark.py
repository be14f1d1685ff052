"""The benchmark measures what it says and makes images like ImageNet's; never how fast they are."""

import contextlib
import importlib
import io
import json
import statistics
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from support.images import write_jpegs

from dali_pipeline import benchmark
from dali_pipeline.benchmarking import jpegs, stages
from dali_pipeline.benchmarking.bench import Bench, Stream, images_per_second
from dali_pipeline.benchmarking.candidates import names_for, open_streams
from dali_pipeline.benchmarking.images import open_images
from dali_pipeline.benchmarking.index import growth
from dali_pipeline.benchmarking.index.cost import report_index_cost
from dali_pipeline.benchmarking.index.growth import report_growth
from dali_pipeline.benchmarking.measure import interleaved, taking_turns
from dali_pipeline.benchmarking.report import decoding, our_ratios
from dali_pipeline.dataset.index_file import open_splits
from dali_pipeline.preparation.pack import pack
from dali_pipeline.preparation.shard import Encoding
from dali_pipeline.sampling.plan import Plan
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend.world import start_world

NO = SimpleNamespace(training=lambda *steps: iter(()))  # a loader of nothing
PEERS = ("bare_decode", "torchvision_pil", "torchvision_decoder")
STAGES = ("read", "decode", "augment", "full", "torchvision_loader")
QUICK = ("--batch", "8", "--threads", "1", "--device", "cpu", "--rounds", "1", "--seconds", "0.01")


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    root = tmp_path_factory.mktemp("small")
    write_jpegs(root / "train", {"ant": 20, "bee": 20}, seed=1)
    write_jpegs(root / "val", {"ant": 1, "bee": 1}, seed=2)
    return root


@pytest.fixture(scope="module")
def measured(small_data, tmp_path_factory):
    """The whole command, once, where what only peers need is not installed."""
    out = tmp_path_factory.mktemp("out")
    figures, picture = out / "figures.json", out / "picture.png"
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("XDG_CACHE_HOME", str(out / "cache"))
        for module in ("ffcv", "webdataset", "simplejpeg", "turbojpeg"):
            patch.setitem(sys.modules, module, None)
        arguments = ("--data", small_data, "--json", figures, "--plot", picture, *QUICK)
        benchmark.main([*map(str, arguments)])
    return SimpleNamespace(
        text=printed.getvalue(), figures=json.loads(figures.read_text()), picture=picture
    )


def test_the_table_has_a_row_for_each_stage_and_peer(measured):
    lines = measured.text.splitlines()
    assert "40 images" in lines[0]
    rows = {line.split()[0]: line.split() for line in lines[2:10]}
    assert tuple(rows) == STAGES + PEERS
    for name, row in rows.items():
        median, low, high = (float(value.replace(",", "")) for value in row[1:4])
        assert 0 < low <= median <= high
        assert median == pytest.approx(measured.figures["images_per_second"][name], abs=0.5)


def test_ratios_are_ours_over_theirs(measured):
    rates, ratios = (measured.figures[key] for key in ("images_per_second", "ratios"))
    assert set(rates) == {*STAGES, *PEERS}
    assert set(ratios) == set(rates) - {"full"}
    for name, ratio in ratios.items():  # of one round: the ratio of the medians
        assert ratio == pytest.approx(rates["full"] / rates[name])


def test_what_is_not_installed_is_skipped_with_the_remedy(measured):
    assert "ffcv skipped: ffcv cannot be imported" in measured.text
    assert "webdataset skipped: " in measured.text
    assert "pip install webdataset" in measured.text
    assert set(measured.figures["skipped"]) == {"ffcv", "full_reencoded", "webdataset"}
    assert "decoded by torchvision.io.decode_jpeg" in measured.text


def test_the_rate_of_a_gpu_is_called_an_assumption(measured):
    rate = measured.figures["images_per_second"]["full"]
    assert f"full feeds {rate / 2500:.2f} GPUs of a node that eat 2,500 images/s" in measured.text
    assert "an assumption, not measured" in measured.text


def test_ways_to_decode_on_a_gpu_are_measured_with_a_gpu_only():
    assert not {"full_gpu", "full_hardware"} & {*names_for([], 1, cuda=False)}
    assert {"full_gpu", "full_hardware"} < {*names_for([], 1, cuda=True)}
    assert names_for(["decode"], 1, cuda=True) == ["decode"]
    assert names_for(["decode"], 8, cuda=False) == ["full"]
    assert names_for(["decode"], 8, cuda=True) == ["full", "full_gpu", "full_hardware"]


@pytest.fixture
def on_a_gpu(small_data):
    """A bench on a GPU that is not there, whose hardware decoder crashed in the probe."""
    train, val = open_splits(small_data)
    settings = Settings(recipe="benchmark", workers=1, batch_per_worker=8)
    plan = Plan(train, val, settings, [range(1)], 0, 1)
    failed = {"hardware": "killed by SIGSEGV (a)"}
    return Bench(plan, torch.device("cuda", 0), 1, Path(), failed)


def test_a_way_of_decoding_that_crashes_is_reported_and_the_others_are_measured(
    on_a_gpu, monkeypatch
):
    opened = []
    monkeypatch.setattr(stages, "make_loader", lambda kind, plan, **_: opened.append(plan) or NO)
    streams, skipped = open_streams(["full_gpu", "full_hardware"], on_a_gpu)
    assert skipped == {"full_hardware": "killed by SIGSEGV (a)"}
    assert [plan.settings.decode for plan in opened] == ["cpu", "gpu"]
    assert "--decode gpu" in streams["full_gpu"].what
    assert decoding({"full": 5000, "full_gpu": 6000}, 2500, on_a_gpu.failed) == (
        "--decode gpu is the quickest: cpu feeds 2.00 GPUs; gpu feeds 2.40 GPUs; "
        "hardware failed, killed by SIGSEGV (a)"
    )


def test_a_gpus_stages_decode_as_the_loader_does(on_a_gpu):
    """By default on the CPU; all that follows is done on the GPU."""
    options = {"batch_size": 8, "num_threads": 1, "device_id": 0, "exec_dynamic": True}
    pipeline = stages._graph(on_a_gpu, 224, **options)
    pipeline._build_graph()  # what ``build`` does before it needs a driver
    devices = {op.name.strip("_").split("_")[0]: op.outputs[0].device for op in pipeline._ops}
    assert [devices[name] for name in ("ImageSlice", "Resize", "Flip")] == ["cpu", "gpu", "gpu"]


def test_the_picture_is_written(measured):
    with Image.open(measured.picture) as picture:
        assert min(picture.size) > 100


def test_ratios_are_medians_of_the_rounds():
    rates = {"full": [2, 3, 8], "peer": [1, 3, 1], "full_reencoded": [6, 6, 6], "ffcv": [3, 2, 1]}
    ratios = our_ratios(rates)
    assert ratios["peer"] == statistics.median([2, 1, 8])
    assert ratios["ffcv"] == statistics.median([2, 3, 6])  # against ours on the same images
    assert ratios["full_reencoded"] == statistics.median([2 / 6, 3 / 6, 8 / 6])


def test_candidates_take_turns_and_the_first_round_does_not_count():
    calls = []

    def candidate(name):
        return lambda: calls.append(name) or len(calls)

    assert taking_turns({n: candidate(n) for n in "ab"}, 2) == {"a": [4, 5], "b": [3, 6]}
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert {name: len(times) for name, times in interleaved({"c": list}, 4).items()} == {"c": 4}


def test_batches_made_before_the_clock_starts_do_not_count(monkeypatch):
    clock = {"now": 0.0}
    monkeypatch.setattr("dali_pipeline.benchmarking.bench.time.perf_counter", lambda: clock["now"])

    def batches():
        for number in range(1000):
            clock["now"] += 0 if number < 8 else 1  # eight lay ready; then one a second
            yield number

    bench = SimpleNamespace(
        threads=2, device=SimpleNamespace(type="cpu"), plan=SimpleNamespace(training_size=32)
    )
    assert images_per_second(Stream("", batches()), bench, seconds=10) == 32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "fcvv"], "--only fcvv: there is no such candidate"),
        (["--json", "nowhere/x.json"], "--json nowhere/x.json: there is no folder"),
        (["--plot", "picture.xyz"], "has to end in .png"),
        (["--batch", "41"], "40 images do not fill a batch of 41"),
        (["--data", "/nowhere"], "data folder /nowhere does not exist"),
    ],
)
def test_what_cannot_work_is_said_at_once(small_data, arguments, message):
    with pytest.raises(BadInput, match=message):
        benchmark.main(["--data", str(small_data), *arguments])


def test_some_images_of_a_data_set_are_taken_evenly(small_data):
    train, val = open_images(small_data, 4, start_world("cpu"))
    assert [name.decode() for name in train.names] == [
        f"{name}.JPEG" for name in ("ant/000", "ant/013", "bee/006", "bee/019")
    ]
    assert train.prepared  # nobody reads headers while the clock runs
    assert len(val) == 1
    for image in range(4):
        assert len(train.read(image)) == train.file_bytes[image]
        with Image.open(train.path(image)) as picture:
            assert picture.size == (train.widths[image], train.heights[image])


def test_some_images_of_a_packed_set_are_the_same_images(small_data, tmp_path):
    world = start_world("cpu")
    loose = open_images(small_data, 40, world)
    pack(loose, tmp_path, Encoding(None, 0), 20_000, 1)
    whole, _ = open_splits(tmp_path)
    assert len(whole.shards) > 1
    packed, _ = open_images(tmp_path, 7, world)
    expected, _ = open_images(small_data, 7, world)
    assert [packed.read(i) for i in range(7)] == [expected.read(i) for i in range(7)]
    assert np.array_equal(packed.heights, expected.heights)


def test_images_are_made_once_and_only_what_is_missing_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    train, _ = open_images(None, 12, start_world("cpu"))
    assert (len(train), len(train.classes)) == (12, 10)
    contents = [train.read(image) for image in range(12)]
    missing, kept = (Path(train.path(image)) for image in (3, 4))
    missing.unlink()
    before = kept.stat().st_mtime_ns
    again, _ = open_images(None, 12, start_world("cpu"))
    assert [again.read(image) for image in range(12)] == contents
    assert kept.stat().st_mtime_ns == before
    assert np.mean(train.file_bytes) == pytest.approx(105_000, rel=0.35)  # of 12


def test_made_up_images_have_the_statistics_of_imagenet():
    traits = [jpegs.traits(number) for number in range(8000)]
    sizes = Counter((like.width, like.height) for like in traits)
    assert sizes[500, 375] / 8000 == pytest.approx(0.52, abs=0.03)
    assert sizes[375, 500] / 8000 == pytest.approx(0.16, abs=0.02)
    assert len(sizes) == len(jpegs.SIZES)
    assert sum(jpegs.SIZES.values()) == 100
    assert np.mean([like.grayscale for like in traits]) == pytest.approx(0.015, abs=0.005)
    assert {like.quality for like in traits} == set(range(88, 96))
    assert np.mean([like.subsampling == "4:2:0" for like in traits]) > 0.85
    assert traits[5] == jpegs.traits(5)


def test_a_grayscale_picture_has_one_channel():
    number = next(n for n in range(1000) if jpegs.traits(n).grayscale)
    assert jpegs.picture(number).mode == "L"
    assert jpegs.picture(0).mode == "RGB"


def test_the_cost_of_an_index_is_measured_with_the_real_functions(tmp_path, capsys):
    report_index_cost(1, tmp_path / "cost.json", train=3000, val=1000)
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert "3,000 and 1,000 made-up images" in capsys.readouterr().out
    assert set(cost["seconds"]) == set(cost["peak_megabytes"])
    assert "open both indexes" in cost["seconds"]


def test_the_growth_of_an_index_is_measured_in_processes_of_their_own(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(growth, "DENSE", 4_000_000)  # the second is written as one of 10^9
    picture = tmp_path / "growth.png"
    report_growth([20_000, 3_000_000], 1, tmp_path / "growth.json", picture)
    written = json.loads((tmp_path / "growth.json").read_text())
    assert set(written["images"]) == {"20000", "3000000"}
    lines = capsys.readouterr().out.splitlines()
    assert ["only what is looked up" in line for line in lines] == [False, False, False, True]
    with Image.open(picture) as drawn:
        assert min(drawn.size) > 100
    # Neither the index nor an order of all its images (140 and 24 MB) is held in private memory.
    small, large = (written["images"][n]["private_megabytes"] for n in ("20000", "3000000"))
    assert large - small < 5


def test_a_disk_too_small_for_a_made_up_index_is_refused(monkeypatch):
    with pytest.raises(BadInput, match="an index of 10,000,000,000,000 images cannot be"):
        report_growth([10**13], 1, None)
    monkeypatch.setattr(growth.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(BadInput, match="an index of 1,000,000 images needs 48,000,000 bytes, .*"):
        report_growth([10**6], 1, None)


JOBS = ["allreduce", "gpu", "loop_tax", "peers", "scaling"]
PARTS = ["fuse", "head"]


@pytest.mark.parametrize("name", JOBS + PARTS)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(name, monkeypatch):
    benchmark = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--json", "/no/such/folder/figures.json"])
    with pytest.raises(BadInput, match="--json .*: there is no folder /no/such/folder: make it"):
        benchmark.main()
