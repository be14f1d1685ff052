"""The preflight's parts that need no other rank."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from itertools import pairwise

import pytest

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.command_line import load_settings
from hvd_utils.horovod_backend import node
from hvd_utils.preflight import child_tasks
from hvd_utils.preflight.checks import network
from hvd_utils.preflight.checks.data import look_into
from hvd_utils.preflight.child import Child
from hvd_utils.preflight.options import read_options
from hvd_utils.preflight.start import check_launch
from hvd_utils.preflight.this_rank import leaders


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "sofware"], "no check sofware"),
        (["--only", "node", "--skip", "node"], "leave no check"),
        (["--json", "/nowhere/x.json"], "there is no folder /nowhere"),
        (["--gpu-rate", "0"], "not above 0"),
        (["--time-limit", "0"], "less than 1"),
        (["--recipe", "unheard-of"], "no recipe unheard-of"),
        (["--recipe", "paper"], "set --data DIR"),
        (["--dta", "x"], "did you mean --data"),
    ],
)
def test_bad_options_are_refused_in_one_line(arguments, message):
    with pytest.raises(BadInput, match=message):
        read_options(arguments, {})


def test_options_choose_recipe_limit_and_checks():
    options, settings = read_options(["--data", "digits", "--quick"], {})
    assert (options.time_limit, settings.recipe) == (120, "paper")
    options, settings = read_options(["--skip", "gpu"], {"IMAGENET_DIR": "/data"})
    assert (options.time_limit, settings.recipe, settings.data) == (120, "paper", "/data")
    assert "gpu" not in options.checks
    flags = ["--data", "s3://bucket/x", "--cache", "/local", "--cache-size", "500GB"]
    _, settings = read_options(flags, {})
    assert (str(settings.cache), settings.cache_size) == ("/local", "500GB")
    assert "node" in options.checks


def test_all_of_the_jobs_settings_are_taken_and_mean_the_same():
    job = [
        *("--data", "digits", "--output", "run", "--device", "cpu", "--on-bad-image", "skip"),
        *("--precision=bf16", "--resolution", "384", "--val-resize", "384", "--loader-threads=3"),
        *("--model", "torchvision/vit_b_16", "--init", "w.pt", "--no-nesterov"),
    ]
    options, settings = read_options(["--quick", *job, "--only", "node"], {})
    assert settings == load_settings(job, {})
    assert (options.quick, options.checks) == (True, ("node",))
    others = ["--ignore-unknown", *job, "--mine", "7", "a"]
    assert read_options(others, {})[1] == settings
    with pytest.raises(BadInput, match="--epoch: did you mean --epochs"):
        read_options([*job, "--epoch", "7"], {})


def test_gloo_is_refused():
    with pytest.raises(BadInput, match="horovodrun without --gloo"):
        check_launch({"HOROVOD_RANK": "0", "HOROVOD_CONTROLLER": "gloo"})
    check_launch({"HOROVOD_CONTROLLER": "mpi", "HOROVOD_RANK": "0"})


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 33])
def test_a_ring_has_each_rank_with_both_neighbours_and_one_partner_a_round(count):
    ranks = [10 * number for number in range(count)]
    rounds = network.ring(ranks)
    for pairs in rounds:
        members = [rank for pair in pairs for rank in pair]
        assert len(members) == len(set(members))
    pairs = {frozenset(pair) for pairs in rounds for pair in pairs}
    assert pairs == {frozenset(pair) for pair in pairwise([*ranks, ranks[0]])}


def test_speeds_of_links_are_read(tmp_path):
    assert network.parse_rate("100 Gb/sec (4X EDR)\n") == 100
    assert network.parse_rate("") is None
    assert network.parse_megabit("25000\n") == 25
    assert network.parse_megabit("-1\n") is None
    for name, speed, real in (("lo", "9000", False), ("eth0", "10000", True), ("eth1", "", True)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "speed").write_text(speed)
        if real:
            (tmp_path / name / "device").mkdir()
    assert network.link_gbit(tmp_path, tmp_path / "infiniband") == 10


def test_the_first_rank_of_each_host_leads():
    assert leaders({0: "b", 1: "a", 2: "b", 3: "c"}) == [0, 1, 3]


def test_a_large_folder_is_not_walked(tmp_path):
    for number in range(100):
        (tmp_path / f"n{number:03d}").mkdir()
        (tmp_path / f"n{number:03d}" / "1.JPEG").write_bytes(b"x" * number)
    index, facts = look_into(tmp_path)
    assert (facts["classes"], facts["images"], facts["sampled"]) == (100, 100, True)
    assert facts["how"].startswith("20 of 100 classes listed")
    assert len(index) == 20


def test_a_child_sees_the_gpu_of_its_rank_first_as_the_job_does(monkeypatch):
    """It is no rank, so its launcher's variables do not tell it which that is."""
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **how: started.append((command, how)))
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_RANK", "1")
    Child()
    ((command, how),) = started
    assert "OMPI_COMM_WORLD_LOCAL_RANK" not in how["env"]
    monkeypatch.setattr(sys, "argv", command[2:])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(os, "dup", lambda descriptor: os.open(os.devnull, os.O_WRONLY))
    monkeypatch.setattr(os, "dup2", lambda *descriptors: None)
    monkeypatch.setattr(node, "_first", 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    child_tasks.main()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,4"


def test_the_mpi_part_needs_no_torch():
    """Nor DALI nor Horovod: they may be what is broken."""
    program = (
        "import sys\n"
        "for name in ('torch', 'nvidia', 'horovod'): sys.modules[name] = None\n"
        "import mpi4py\n"
        "mpi4py.rc.initialize = False\n"
        "import hvd_utils.preflight.__main__, hvd_utils.preflight.checks.table\n"
        "import hvd_utils.preflight.report, hvd_utils.preflight.messages\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
