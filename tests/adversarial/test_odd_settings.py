"""Settings on the command line of training: names, types and bounds."""

from __future__ import annotations

import pytest
from support.launching import TINY
from support.odd_inputs import assert_ends, call, nothing_written, rows, words

import train_imagenet

SHORT = (*TINY, "--max-steps", "2")

# What is given, and what the one line has to say.
REFUSED = [
    ("--max-steps 0", "--max-steps 0", "greater than 0"),
    ("--max-steps -1", "--max-steps -1"),
    ("--max-steps 1.5", "--max-steps 1.5", "whole number"),
    ("--max-steps 1e3", "--max-steps 1e3", "whole number"),
    ("--max-steps ٣", "--max-steps ٣"),
    ("--seed -1", "--seed -1", "at least 0"),
    ("--seed 9223372036854775808", "--seed 9223372036854775808", "less than"),
    ("--seed one", "--seed one", "whole number"),
    ("--seed 0x10", "--seed 0x10", "whole number"),
    ("--seed", "--seed", "expected one argument"),
    ("--seed 1 --seed x", "--seed x"),
    ("--workers 0", "--workers 0", "greater than 0"),
    ("--workers -3", "--workers -3"),
    ("--workers 1000", "1000 workers", "1437 training images", "lower --workers"),
    ("--workers 99999999999999999999999", "workers"),
    ("--reference-rate nan", "--reference-rate nan", "finite"),
    ("--reference-rate inf", "--reference-rate inf", "finite"),
    ("--reference-rate 1e400", "--reference-rate 1e400", "finite"),
    ("--reference-rate 1e-400", "--reference-rate 1e-400", "greater than 0"),
    ("--reference-rate -0.1", "--reference-rate -0.1"),
    ("--reference-rate 0,1", "--reference-rate 0,1", "number"),
    ("--reference-rate ''", "--reference-rate", "number"),
    ("--reference-minibatch 0", "--reference-minibatch 0"),
    ("--scaling quadratic", "--scaling quadratic", "sqrt"),
    ("--warmup slow", "--warmup slow", "gradual"),
    ("--warmup-epochs -1", "--warmup-epochs -1"),
    ("--warmup-epochs inf", "--warmup-epochs inf"),
    ("--epochs 0", "--epochs 0"),
    ("--epochs 90.5", "--epochs 90.5", "whole number"),
    ("--epochs 99999999999999999999", "--epochs"),
    ("--decay linear", "--decay linear", "cosine"),
    ("--decay-epochs 3,x", "--decay-epochs x", "number"),
    ("--decay-epochs 30;60", "--decay-epochs 30;60"),
    ("--decay-epochs 0", "--decay-epochs", "greater than 0"),
    ("--decay-epochs nan", "--decay-epochs nan"),
    ("--decay cosine --decay-epochs 3", "--decay-epochs has no effect", "--decay step"),
    ("--decay-power 2", "--decay-power has no effect", "--decay polynomial"),
    ("--decay polynomial --decay-power 0", "--decay-power 0"),
    ("--decay-factor 2", "--decay-factor 2"),
    ("--optimizer adam", "--optimizer adam", "lars"),
    ("--optimizer lars --decay-batch-norm", "leave out --decay-batch-norm"),
    ("--trust-coefficient 1", "--trust-coefficient has no effect", "--optimizer lars"),
    ("--momentum 1", "--momentum 1", "less than 1"),
    ("--momentum 0", "--momentum", "--no-nesterov"),
    ("--weight-decay -1", "--weight-decay -1"),
    ("--label-smoothing 1", "--label-smoothing 1"),
    ("--compression int8", "--compression int8", "bf16"),
    ("--average mean", "--average mean", "ema"),
    ("--average ema --average-decay 1", "--average-decay 1"),
    ("--average-decay 0.9", "--average-decay has no effect", "--average ema"),
    ("--resolution 0", "--resolution 0"),
    ("--resolution 100000", "--val-resize", "--resolution"),
    ("--val-resize 8", "--val-resize", "smaller than --resolution"),
    ("--val-resolution 64", "--val-resize", "smaller than --val-resolution"),
    ("--resolution-from 8", "--resolution-ramp", "set both"),
    ("--resolution-from 99 --resolution-ramp 0,1", "--resolution-from 99"),
    ("--resolution-from 8 --resolution-ramp 1", "--resolution-ramp"),
    ("--resolution-from 8 --resolution-ramp 1,x", "--resolution-ramp x"),
    ("--resolution-from 8 --resolution-ramp 2,1", "--resolution-ramp", "first before the second"),
    ("--min-crop-area 1.1", "--min-crop-area 1.1"),
    ("--max-crop-ratio 0.5", "--max-crop-ratio 0.5"),
    ("--model vgg160", "no model vgg160", "resnet50"),
    ("--model ''", "no model", "resnet50"),
    ("--model RESNET8", "no model RESNET8"),
    ("--model ../resnet8", "no model ../resnet8"),
    ("--precision fp8", "--precision fp8", "bf16"),
    ("--precision tf32", "--precision tf32", "fp32"),
    ("--batch-norm triton", "--batch-norm triton", "--batch-norm torch"),
    ("--device gpu", "--device gpu", "cuda"),
    ("--device cuda:0", "--device cuda:0", "cuda"),
    ("--batch-per-worker 0", "--batch-per-worker 0"),
    ("--batch-per-worker 1000000", "1437 training images", "--batch-per-worker"),
    ("--batch-per-worker 99999999999999999999", "1437 training images", "--batch-per-worker"),
    ("--fuse-workers 0", "--fuse-workers 0"),
    ("--wokers 2", "unknown setting --wokers", "--workers"),
    ("--flip=yes", "--flip", "yes"),
    ("--flip yes", "unknown setting yes"),
    ("--no-fliP", "unknown setting --no-fliP"),
    ("--worker 2", "unknown setting --worker", "--workers"),
    ("surplus", "unknown setting surplus", "--help"),
    ("--checkpoint-every 0", "--checkpoint-every 0", "greater than 0"),
    ("--checkpoint-every -5min", "--checkpoint-every"),
    ("--checkpoint-every=-5min", "--checkpoint-every -5min", "10min"),
    ("--checkpoint-every 5days", "--checkpoint-every 5days", "no unit days"),
    ("--checkpoint-every ''", "--checkpoint-every", "10min"),
    ("--checkpoint-every 1.5", "--checkpoint-every 1.5", "whole"),
    ("--checkpoint-every nan", "--checkpoint-every nan"),
    ("--keep-checkpoints -1", "--keep-checkpoints -1"),
    ("--keep-checkpoints all", "--keep-checkpoints all", "whole number"),
    ("--log-every 0", "--log-every 0"),
    ("--stall-timeout -1", "--stall-timeout -1"),
    ("--stall-timeout inf", "--stall-timeout inf"),
    ("--stall-timeout 1e12", "--stall-timeout 1e12"),
    ("--val-batch 0", "--val-batch 0"),
    ("--prefetch 0", "--prefetch 0"),
    ("--loader pillow", "--loader pillow", "torchvision"),
    ("--loader-threads 0", "--loader-threads 0"),
    ("--decode nvjpeg", "--decode nvjpeg", "hardware"),
    ("--decode gpu --device cpu", "--decode gpu is for --loader dali on a GPU", "leave it out"),
    ("--hw-decoder-load 0.75", "--hw-decoder-load, which is gone", "set --decode hardware"),
    ("--usual-height 375", "--usual-height, which is gone", "--largest-height"),
    ("--largest-height -1", "--largest-height -1"),
    ("--on-bad-image ignore", "--on-bad-image ignore", "skip"),
    ("--loader synthetic --synthetic-images 0", "--synthetic-images 0"),
    ("--loader synthetic --synthetic-images 3", "3 training images"),
    ("--loader synthetic --synthetic-images 1000000000000000", "--synthetic-images"),
    ("--bucket-mb -1", "--bucket-mb -1"),
    ("--bucket-mb nan", "--bucket-mb nan"),
    ("--fusion-mb -1", "--fusion-mb -1"),
    ("--cycle-ms 0", "--cycle-ms 0"),
    ("--allreduce ring", "--allreduce ring", "torus"),
    ("--nccl-streams 0", "--nccl-streams 0"),
    ("--compile max", "--compile max", "cudagraphs"),
    ("--batch-norm cudnn", "--batch-norm cudnn", "triton"),
    ("--autotune tuned.txt", "--autotune tuned.txt", ".yaml"),
    ("--autotune /none/such/tuned.yaml", "--autotune /none/such/tuned.yaml", "there is no folder"),
    ("--output ''", "--output"),
    ("--recipe ''", "recipe"),
    ("--recipe demo --recipe none", "no recipe none", "demo, "),
    ("--eval-only ''", "checkpoint"),
]

# What looks odd and is not.
FINE = [
    "--batch-per-worker 1",
    "--batch-per-worker 31",  # more than a validation round holds
    "--decay-epochs ''",
    "--decay-epochs 60,30",
    "--resolution 1 --val-resize 1",
    "--checkpoint-every 1h",
    "--checkpoint-every 0.001s",
    "--checkpoint-every 99999999999999999999h",
    "--compression bf16",
    "--seed 9223372036854775807",
    "--seed x --seed 1",
    "--log-every 99999999999999999999999",
    "--stall-timeout 0",
    "--no-nesterov --momentum 0",
    "--warmup-epochs 1e9",
    "--fusion-mb 1e30",
    "--loader synthetic --synthetic-images 4 --model resnet20",
]


@pytest.mark.parametrize(("given", "named"), rows([(row[0], row[1:]) for row in REFUSED]))
def test_refused(here, given, named):
    with nothing_written(here):
        ended = call(train_imagenet.main, *SHORT, "--output", here / "run", *words(given))
        assert_ends(ended, 2, *named)


@pytest.mark.parametrize("given", FINE)
def test_fine(here, given):
    ended = call(train_imagenet.main, *SHORT, "--output", here / "run", *words(given))
    assert_ends(ended, 0, "trained to step 2")


@pytest.mark.parametrize("given", ["--reference-rate 1e30", "--weight-decay 1e30"])
def test_a_rate_at_which_numbers_overflow(here, given):
    ended = call(train_imagenet.main, *SHORT, "--output", here / "run", *words(given))
    assert_ends(ended, 2, "at step", "--reference-rate", "--weight-decay", "not-finite.json")
    assert not (here / "run" / "checkpoints").exists()


def test_a_gpu_where_there_is_none(here, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ended = call(train_imagenet.main, *SHORT, "--device", "cuda", "--output", here / "run")
    assert_ends(ended, 2, "no CUDA device", "--device cpu")


def test_help_is_no_error(here):
    ended = call(train_imagenet.main, "--help")
    assert_ends(ended, 0, "--reference-rate", "--checkpoint-every")
