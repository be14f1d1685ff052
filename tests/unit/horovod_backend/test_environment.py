"""Horovod's variables from the settings, buckets, compression, and the autotuner's log."""

from __future__ import annotations

import horovod.torch as hvd
import pytest
import torch
from horovod.torch import mpi_ops

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.command_line import load_settings
from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend import autotune, environment
from hvd_utils.horovod_backend.compression import BrainFloat, ScaledHalf, make_compression
from hvd_utils.horovod_backend.environment import horovod_variables
from hvd_utils.horovod_backend.gradient_buckets import buckets


def variables(cuda=False, elastic=False, **given):
    settings = Settings(recipe="paper", **{"stall_timeout": 0, **given})
    return horovod_variables(settings, cuda=cuda, elastic=elastic)


def test_every_knob_becomes_horovods_variable():
    assert variables(
        cuda=True, fusion_mb=0.5, cycle_ms=2.5, allreduce="torus", nccl_streams=2, bucket_mb=0
    ) == {
        "HOROVOD_FUSION_THRESHOLD": "524288",
        "HOROVOD_CYCLE_TIME": "2.5",
        "HOROVOD_TORUS_ALLREDUCE": "1",
        "HOROVOD_NUM_NCCL_STREAMS": "2",
        "HOROVOD_ENABLE_ASYNC_COMPLETION": "1",
    }
    assert variables(allreduce="hierarchical")["HOROVOD_HIERARCHICAL_ALLREDUCE"] == "1"


def test_horovods_timeline_can_be_begun_where_a_profile_is_asked_for_alone():
    assert "HOROVOD_TIMELINE" not in variables()
    assert variables(profile=(1, 2))["HOROVOD_TIMELINE"] == "DYNAMIC"
    with pytest.raises(BadInput, match="--profile does not go with an elastic launch"):
        variables(profile=(1, 2), elastic=True)


def test_a_bucket_fits_horovods_buffer():
    for cuda in (False, True):
        limit = environment.bucket_mb(Settings(recipe="paper"), cuda=cuda)
        assert int(variables(cuda=cuda)["HOROVOD_FUSION_THRESHOLD"]) > limit * 2**20
        assert variables(cuda=cuda)["HOROVOD_DISABLE_GROUP_FUSION"] == "1"
    assert variables(bucket_mb=0) == environment.ASLEEP
    assert variables(cuda=True, bucket_mb=0).keys().isdisjoint(environment.ASLEEP)


def test_the_users_environment_comes_first(monkeypatch):
    monkeypatch.setattr(environment.os, "environ", {"HOROVOD_CYCLE_TIME": "7"})
    settings = Settings(recipe="paper", cycle_ms=2, fusion_mb=1)
    environment.prepare(settings, cuda=False)
    assert environment.os.environ["HOROVOD_CYCLE_TIME"] == "7"
    assert environment.os.environ["HOROVOD_FUSION_THRESHOLD"] == "1048576"


def test_an_elastic_launch_has_buckets_and_nothing_that_crashes_it():
    assert variables(cuda=True, elastic=True) == {"HOROVOD_DISABLE_GROUP_FUSION": "1"}
    with pytest.raises(BadInput, match="--cycle-ms does not go with an elastic launch"):
        variables(elastic=True, cycle_ms=1)


def test_buckets_hold_each_gradient_once_from_the_last_to_the_first():
    sizes = [("a", 1), ("b", 3), ("c", 10), ("d", 2), ("e", 2)]
    assert buckets(sizes, 4 / 2**20) == [["e", "d"], ["c"], ["b", "a"]]
    assert buckets(sizes, 1) == [["e", "d", "c", "b", "a"]]


def test_behind_the_last_gradients_sum_at_most_a_megabyte_is_left():
    megabytes = [("a", 0.2), ("b", 0.7), ("c", 0.2), ("d", 3), ("e", 3), ("f", 3)]
    sizes = [(name, int(2**20 * size)) for name, size in megabytes]
    assert buckets(sizes, 8) == [["f", "e"], ["d", "c"], ["b", "a"]]
    assert buckets(sizes[2:], 8)[-1] == ["c"]
    assert buckets(sizes[3:], 8) == [["f", "e"], ["d"]]


def test_compression_keeps_the_small_parts_of_256_ranks():
    """A gradient of 5e-6, divided by kn with the loss; bare half precision would lose it."""
    parts = torch.full((256, 4), 5e-6 / 256) * torch.tensor([1.0, 10.0, 1000.0, -1.0])
    assert not parts[0].half()[0]
    sent = [ScaledHalf.compress(part) for part in parts]
    assert {half.dtype for half, _ in sent} == {torch.float16}
    total = sum(half for half, _ in sent[1:]) + sent[0][0]
    back = ScaledHalf.decompress(sent[0][0], sent[0][1])
    assert back.dtype == torch.float32
    torch.testing.assert_close(back, parts[0], rtol=1e-2, atol=0)
    torch.testing.assert_close(
        ScaledHalf.decompress(total, torch.float32), parts.sum(0), rtol=0.05, atol=0
    )
    assert ScaledHalf.compress(torch.tensor([100.0]))[0].isinf()  # which not_finite.py then finds


def test_compression_is_part_of_the_experiment():
    assert Settings(recipe="paper").experiment()["compression"] == "none"
    assert make_compression("fp16", scaled=False) is ScaledHalf
    assert make_compression("fp16", scaled=True) is hvd.Compression.fp16  # the loss scaler scales
    assert make_compression("bf16", scaled=True) is BrainFloat
    assert load_settings(["--compression", "bf16"], {}).compression == "bf16"


def test_a_horovod_that_cannot_sum_bfloat16_is_told_of(monkeypatch):
    monkeypatch.setattr(mpi_ops, "mpi_lib", object())  # as released it lacks the function
    with pytest.raises(BadInput, match="bf16: this Horovod cannot sum bfloat16: build it by"):
        make_compression("bf16", scaled=False)


LOG = """\
hierarchical_allreduce,hierarchical_allgather,torus_allreduce,cache_enabled,cycle_time_ms,\
tensor_fusion_threshold,score
0,0,0, 1,5,4,120.5
0,0,1, 1,12.5,33.25,240
1,0,0, 1,50,32,
"""


def test_the_best_sample_of_the_autotuner_becomes_a_recipe_to_go_on_with(tmp_path):
    (tmp_path / "tuned.csv").write_text(LOG)
    recipe = tmp_path / "tuned.yaml"
    samples = autotune.read_log(autotune.log_of(recipe))
    assert len(samples) == 2  # the third is still being written
    autotune.write_recipe(recipe, samples)
    settings = load_settings(["--recipe", "demo", "--autotune", str(recipe)], {})
    assert (settings.fusion_mb, settings.cycle_ms, settings.allreduce) == (33.25, 12.5, "torus")
    assert settings.model == "resnet8"
    assert "HOROVOD_AUTOTUNE" not in horovod_variables(settings, cuda=False, elastic=False)
    given = ["--autotune", str(recipe), "--cycle-ms", "3"]
    assert load_settings(given, {}).cycle_ms == 3


def test_horovod_waits_for_a_rank_that_takes_long_to_start():
    """As to look through a data set on a cold disk, while the others wait in a broadcast."""
    name = "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS"
    for elastic in (False, True):
        assert variables(stall_timeout=40, elastic=elastic)[name] == "3680"
        assert name not in variables(stall_timeout=0, elastic=elastic)


def test_tuning_leaves_free_what_is_tuned(tmp_path):
    found = variables(cuda=True, autotune=tmp_path / "new.yaml")
    assert found["HOROVOD_AUTOTUNE"] == "1"
    assert found["HOROVOD_AUTOTUNE_LOG"] == str(tmp_path / "new.csv")
    assert not {"HOROVOD_FUSION_THRESHOLD", "HOROVOD_CYCLE_TIME"} & set(found)
    assert "HOROVOD_DISABLE_GROUP_FUSION" not in found


def test_a_tuned_recipe_needs_a_place(tmp_path):
    settings = Settings(recipe="paper", autotune=tmp_path / "none" / "new.yaml")
    with pytest.raises(BadInput, match="there is no folder"), autotune.autotuning(settings):
        pass
    with pytest.raises(BadInput, match=r"a name that ends in \.yaml"):
        load_settings(["--autotune", "tuned"], {})
