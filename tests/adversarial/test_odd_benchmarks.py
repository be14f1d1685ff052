"""The benchmarks: what cannot be measured, and where no figures can be written."""

from __future__ import annotations

import importlib

import pytest
from support.odd_inputs import assert_ends, call, nothing_written, rows, words

MODULES = {"benchmarks.study": "benchmarks.study.__main__"}
TINY = "dali_pipeline.benchmark --data {data} --batch 4 --rounds 1"

# A benchmark with options, and what the line says; {data} is a small data set.
REFUSED = [
    ("dali_pipeline.benchmark --images 0", "--images"),
    ("dali_pipeline.benchmark --batch x", "--batch"),
    ("dali_pipeline.benchmark --data {data} --batch 31", "31", "lower --batch"),
    (f"{TINY} --only none", "--only none", "full"),
    (f"{TINY} --only ''", "--only"),
    (f"{TINY} --seconds 0", "--seconds"),
    (f"{TINY} --seconds -1", "--seconds"),
    (f"{TINY} --seconds nan", "--seconds"),
    ("dali_pipeline.benchmark --data {data} --rounds 0", "--rounds"),
    ("dali_pipeline.benchmark --data {data} --threads 0", "--threads"),
    ("dali_pipeline.benchmark --data {data} --gpu-rate 0", "--gpu-rate"),
    ("dali_pipeline.benchmark --data {data} --device tpu", "--device"),
    ("dali_pipeline.benchmark --data {data} --device cuda", "no CUDA device"),
    ("dali_pipeline.benchmark --data /none", "/none does not exist"),
    ("dali_pipeline.benchmark --data {data}/train", "has no train/"),
    ("dali_pipeline.benchmark --data {here}/file", "file"),
    ("dali_pipeline.benchmark --json /none/such.json", "--json /none/such.json", "no folder"),
    (f"{TINY} --seconds 0.01 --only full --json {{here}}", "--json"),
    (f"{TINY} --seconds 0.01 --only full --plot {{here}}", "--plot"),
    ("dali_pipeline.benchmark --plot bars.txt", "--plot bars.txt", ".png"),
    ("dali_pipeline.benchmark --plot /none/bars.png", "--plot", "no folder"),
    ("dali_pipeline.benchmark --index --rounds 0", "--rounds"),
    ("dali_pipeline.benchmark --indx", "--indx"),
    ("benchmarks.allreduce --json /none/such.json", "--json", "no folder"),
    ("benchmarks.allreduce --plot /none/bars.png", "--plot", "no folder"),
    ("benchmarks.allreduce --ranks 2 --rounds 0", "--rounds"),
    ("benchmarks.allreduce --ranks x", "--ranks"),
    ("benchmarks.allreduce --ranks", "--ranks"),
    ("benchmarks.allreduce --rounds x", "--rounds"),
    ("benchmarks.fuse --json /none/such.json", "--json", "no folder"),
    ("benchmarks.fuse --model vgg160", "no model vgg160"),
    ("benchmarks.fuse --model resnet8 --resolution 0", "--resolution"),
    ("benchmarks.fuse --model resnet8 --resolution 8 --workers 0", "--workers"),
    ("benchmarks.fuse --model resnet8 --resolution 8 --batch-per-worker 0", "--batch-per-worker"),
    ("benchmarks.fuse --model resnet8 --resolution 8 --workers 1 --rounds 0", "--rounds"),
    ("benchmarks.fuse --model resnet8 --resolution 8 --workers 1 --steps 0", "--steps"),
    ("benchmarks.fuse --device cuda", "no CUDA device"),
    ("benchmarks.gpu --device tpu", "--device"),
    ("benchmarks.gpu --device cuda", "no CUDA device"),
    ("benchmarks.gpu --json /none/such.json", "--json", "no folder"),
    ("benchmarks.gpu --precisions fp8 --device cpu --model resnet8 --resolution 32", "fp8"),
    ("benchmarks.gpu --minutes soon", "--minutes"),
    ("benchmarks.gpu --minutes 0 --device cpu --quick", "--minutes"),
    ("benchmarks.loop_tax --json /none/such.json", "--json", "no folder"),
    ("benchmarks.loop_tax --precision fp8", "--precision"),
    ("benchmarks.loop_tax --rounds 0", "--rounds"),
    ("benchmarks.peers --json /none/such.json", "--json", "no folder"),
    ("benchmarks.peers --only nobody", "--only nobody"),
    ("benchmarks.peers --data tapes", "--data tapes", "memory, jpegs"),
    ("benchmarks.peers --data memory --rounds 0", "--rounds"),
    ("benchmarks.scaling --json /none/such.json", "--json", "no folder"),
    ("benchmarks.scaling --rounds 0", "--rounds"),
    ("benchmarks.study --json /none/such.json", "--json", "no folder"),
    ("benchmarks.study --curves /none/curves.png", "--curves", "no folder"),
    ("benchmarks.study --seeds 0", "--seeds 0"),
    ("benchmarks.study --only none", "--only none", "baseline"),
    ("benchmarks.study --only baseline,", "--only"),
    ("benchmarks.study --images 3", "--images 3"),
    ("benchmarks.study --images many", "--images"),
    ("benchmarks.study --only baseline --images 40", "--images 40: at least 200"),
    ("benchmarks.study --only baseline --images 40 --epochs 0", "--epochs"),
    ("benchmarks.study --only baseline --images 400 --output {here}/file", "file"),
    ("benchmarks.study.images {here}", "exists already"),
    ("benchmarks.study.images new --classes 1", "--classes 1"),
    ("benchmarks.study.images new --classes 9 --train 8", "--classes 9"),
    ("benchmarks.study.images new --val 0", "--classes"),
    ("benchmarks.study.images new --seed -1", "--seed"),
    ("benchmarks.study.images {here}/file/new", "file"),
    ("benchmarks.study.images", "required: folder"),
]


@pytest.mark.parametrize(("given", "named"), rows([(row[0], row[1:]) for row in REFUSED]))
def test_refused(data, here, given, named, monkeypatch):
    """At once: what takes minutes, or starts ranks, has not begun."""
    (here / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("benchmarks.harness.processes.start", never)
    name, *options = words(given, data=data, here=here)
    main = importlib.import_module(MODULES.get(name, name)).main
    with nothing_written(here, {"cache"}):
        assert_ends(call(main, *options), 2, *named)


def never(*arguments, **options):
    raise AssertionError("it has begun to measure")
