"""What goes wrong ends every rank with one clear line, no traceback and no hang."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.endings import assert_nobody_is_left, assert_one_clear_line
from support.images import write_jpegs
from support.launching import JOB, REPOSITORY, TINY, launch, train
from support.quick_python import quick_python

from dali_pipeline.dataset.scan import scan_splits
from dali_pipeline.sampling.plan import Plan
from hvd_utils.config.command_line import load_settings
from hvd_utils.run.checkpoint import list_checkpoints, load_checkpoint


def train_unlike(first: list[object], second: list[object], **options):
    """Run the job on two ranks, each with a command line of its own."""
    other = [":", "-np", 1, *quick_python(), JOB, *second]
    return train(*first, *other, ranks=1, by="mpirun", **options)


@pytest.fixture(scope="module")
def finished_run(tiny_data, tmp_path_factory):
    run = tmp_path_factory.mktemp("finished")
    assert train("--data", tiny_data, "--output", run, *TINY, by="python").code == 0
    return run


# Each of the launchers takes its turn; the digits are the data where none is named.
@pytest.mark.parametrize(
    ("by", "arguments", "words"),
    [
        ("mpi", ["--data", "/none/such"], ["/none/such does not exist", "--data"]),
        ("gloo", ["--data", "/none/such"], ["/none/such does not exist", "IMAGENET_DIR"]),
        ("mpirun", ["--recipe", "paper"], ["recipe paper needs images", "--data"]),
        ("mpi", ["--recipe", "none"], ["no recipe none", "demo, ", "paper, "]),
        ("gloo", ["--epoch", "3"], ["unknown setting --epoch", "--epochs"]),
        ("mpirun", ["--batch-per-worker", "0"], ["--batch-per-worker 0", "greater than 0"]),
        ("mpi", ["--epochs", "-1"], ["--epochs -1"]),
        ("gloo", ["--reference-rate", "nan"], ["--reference-rate nan"]),
        ("mpirun", ["--model", "vgg"], ["no model vgg", "resnet50"]),
        ("mpi", ["--workers", "1"], ["2 processes cannot share --workers 1"]),
        ("gloo", ["--batch-per-worker", "1000"], ["more than the 1437 training images"]),
        ("mpirun", ["--eval-only", "/none.pt"], ["no checkpoint /none.pt: give"]),
        ("mpi", ["--resume", "/none.pt"], ["no checkpoint /none.pt: give"]),
        ("gloo", ["--output", "/dev/null/run"], ["cannot write to output folder /dev/null/run"]),
        ("mpirun", ["--reference-rate", "1e30"], ["the loss became", "at step", "--warmup-epochs"]),
    ],
)
def test_settings_and_folders(tmp_path, by, arguments, words):
    output = [] if "--output" in arguments else ["--output", tmp_path / "run"]
    ended = train(*output, *arguments, by=by, ranks=2)
    assert_one_clear_line(ended, *words)
    assert ended.code == 2
    assert_nobody_is_left(tmp_path)


@pytest.mark.parametrize("by", ["mpi", "gloo", "mpirun"])
def test_ranks_that_are_started_as_users_start_them(tmp_path, by):
    ended = train("--data", "/none/such", "--output", tmp_path / "run", by=by, ranks=2, quick=False)
    assert_one_clear_line(ended, "/none/such does not exist")
    assert ended.code == 2
    assert_nobody_is_left(tmp_path)


def test_a_cuda_device_where_there_is_none(tmp_path):
    options = ("--device", "cuda", "--output", tmp_path / "run")
    ended = train(*options, ranks=2, timeout=300, CUDA_VISIBLE_DEVICES="")
    assert_one_clear_line(ended, "no CUDA device", "--device cpu")


@pytest.mark.long
@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda data: shutil.rmtree(data / "val"), ["has no val/"]),
        (lambda data: shutil.rmtree(data / "train" / "bee"), ["class bee is in", "val but not"]),
        (lambda data: (data / "val" / "cat" / "000.JPEG").unlink(), ["cat has no images"]),
    ],
)
def test_data_folders_that_do_not_fit(tmp_path, harm, words):
    data = tmp_path / "data"
    write_jpegs(data / "train", {"ant": 4, "bee": 4, "cat": 4})
    write_jpegs(data / "val", {"ant": 1, "bee": 1, "cat": 1})
    harm(data)
    ended = train("--data", data, "--output", tmp_path / "run", *TINY, ranks=2, timeout=300)
    assert_one_clear_line(ended, *words)


@pytest.mark.long
def test_a_checkpoint_of_another_model(finished_run, tiny_data):
    checkpoint = list_checkpoints(finished_run)[0]
    ended = train(
        "--data", tiny_data, *TINY, "--model", "resnet20", "--eval-only", checkpoint, ranks=2
    )
    assert_one_clear_line(ended, str(checkpoint), "resnet8 with 3 classes", "resnet20")


def test_a_run_with_other_settings_is_not_mixed_into_this_one(finished_run, tiny_data):
    options = ("--data", tiny_data, "--output", finished_run, *TINY)
    before = (finished_run / "metrics.jsonl").read_bytes()
    ended = train(*options, "--seed", 2, "--workers", 2, ranks=2)
    assert_one_clear_line(ended, "--seed was 1, now 2", "--workers was 1, now 2")
    ended = train(*options, "--resume", "never", by="python")
    assert_one_clear_line(ended, "already holds a run")
    assert (finished_run / "metrics.jsonl").read_bytes() == before


@pytest.mark.long
@pytest.mark.parametrize("option", ["--resume", "--eval-only"])
def test_a_truncated_checkpoint(finished_run, tiny_data, tmp_path, option):
    whole = list_checkpoints(finished_run)[0].read_bytes()
    broken = tmp_path / "broken.pt"
    broken.write_bytes(whole[: len(whole) // 2])
    options = ("--data", tiny_data, "--output", tmp_path / "run", *TINY)
    ended = train(*options, option, broken, ranks=2, by="gloo")
    assert_one_clear_line(ended, f"checkpoint {broken} is damaged")


def test_a_damaged_newest_checkpoint_is_passed_over(finished_run, tiny_data, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    newest = list_checkpoints(run)[0]
    newest.write_bytes(newest.read_bytes()[:1000])
    ended = train("--data", tiny_data, "--output", run, *TINY, by="python")
    assert ended.code == 0, ended.output
    assert f"checkpoint {newest} is damaged: passed over" in ended.output
    assert load_checkpoint(newest)["step"] == 15  # made anew


@pytest.mark.parametrize("by", ["mpi", "gloo"])
def test_one_rank_failing_alone_ends_all(tmp_path, by):
    """An image that only rank 1 reads is broken: rank 0 must not wait for its gradients."""
    data = tmp_path / "data"
    write_jpegs(data / "train", {"ant": 8, "bee": 8})
    write_jpegs(data / "val", {"ant": 1, "bee": 1})
    settings = load_settings(["--data", str(data), *TINY], {}).with_workers(2)
    plan = Plan(*scan_splits(data), settings, [range(1, 2)], 1, 2)
    _, ids = plan.training_ids(0, range(1, 2))
    bad = Path(plan.train.path(ids[0]))
    bad.write_bytes(b"not a picture")
    output = tmp_path / "run"
    ended = train("--data", data, "--output", output, *TINY, by=by, ranks=2, timeout=300)
    assert_one_clear_line(ended, str(bad), rank=1)
    assert_nobody_is_left(output)


def breaking_job(action: str, *arguments: object) -> list[str]:
    """The job, but rank 1 does ``action`` where it should validate."""
    program = f"""
import os, runpy, signal, sys
import horovod.torch as hvd
from hvd_utils.training import loops
whole = loops.validate
def breaks(*arguments, **options):
    if hvd.rank() == 1:
        {action}
    return whole(*arguments, **options)
loops.validate = breaks
sys.argv = {["job", *map(str, arguments)]!r}
runpy.run_path({JOB!r}, run_name="__main__")
"""
    return ["-c", program]


def test_an_unexpected_error_of_one_rank_ends_all_and_keeps_its_traceback(tiny_data, tmp_path):
    options = ("--data", tiny_data, "--output", tmp_path, *TINY)
    job = breaking_job("raise ZeroDivisionError('made on purpose')", *options)
    ended = launch(job, ranks=2, timeout=300, quick=False)
    report = tmp_path / "error-rank1.txt"
    assert_one_clear_line(ended, "ZeroDivisionError: made on purpose", str(report), rank=1)
    assert ended.code == 1
    assert "Traceback" in report.read_text()
    assert_nobody_is_left(tmp_path)


@pytest.mark.parametrize("by", ["mpi", "gloo"])
def test_a_rank_killed_ends_all(tiny_data, tmp_path, by):
    options = ("--data", tiny_data, "--output", tmp_path, *TINY)
    job = breaking_job("os.kill(os.getpid(), signal.SIGKILL)", *options)
    ended = launch(job, ranks=2, by=by, timeout=300, quick=False)
    assert ended.code != 0
    assert "Traceback" not in ended.output
    assert_nobody_is_left(tmp_path)


def test_a_full_disk_leaves_what_was_saved(tiny_data, small_disk):
    """Room for one checkpoint of 0.6 MB, not for two."""
    run = small_disk("1100k") / "run"
    ended = train("--data", tiny_data, "--output", run, *TINY, ranks=2)
    assert_one_clear_line(ended, "cannot save", "No space left", "intact: ")
    (saved,) = list_checkpoints(run)
    assert f"intact: {saved}" in ended.output
    assert load_checkpoint(saved)["progress"]["epoch_steps"] == 0
    assert not list(run.glob("checkpoints/*.tmp"))


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (["--reference-rate", "0.05"], ["--reference-rate is 0.05, on rank 0 0.1"]),
        (["--seed", "2", "--max-steps", "9"], ["--seed is 2, on rank 0 1", "--max-steps is 9"]),
        (
            ["--recipe", "study", "--data", "digits"],
            ["--reference-minibatch is 8", "--warmup-epochs is 0.75"],
        ),
    ],
)
def test_ranks_that_were_given_other_settings_do_not_train(tmp_path, own, words):
    common = [*TINY, "--workers", "2", "--output", tmp_path / "run"]
    ended = train_unlike(common, [*common, *own])
    assert ended.code == 2
    assert_one_clear_line(ended, "rank 1 (", "not what rank 0", "mpirun passes", *words)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert_nobody_is_left(tmp_path)


def test_ranks_of_another_code_do_not_train(tmp_path):
    """As an old checkout on a node's own disk."""
    for name in ("hvd_utils", "dali_pipeline", "recipes"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    shutil.copy(JOB, tmp_path / "train_imagenet.py")
    with (tmp_path / "hvd_utils" / "schedule.py").open("a") as file:
        file.write("# changed\n")
    common = [*TINY, "--workers", "2", "--output", tmp_path / "run"]
    other = [":", "-np", 1, *quick_python(), tmp_path / "train_imagenet.py", *common]
    ended = train(*common, *other, ranks=1, by="mpirun")
    assert ended.code == 2
    assert_one_clear_line(ended, "rank 1 (", "code is", "on rank 0")


def test_each_rank_may_find_its_data_elsewhere(tiny_data, tmp_path):
    """Staged to local disks under other names, with other numbers of threads."""
    copy = tmp_path / "copy"
    shutil.copytree(tiny_data, copy)
    common = [*TINY, "--workers", "2", "--output", tmp_path / "run"]
    own = [*common, "--data", copy, "--loader-threads", "2"]
    ended = train_unlike([*common, "--data", tiny_data], own)
    assert ended.code == 0, ended.output
