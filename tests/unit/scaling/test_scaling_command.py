"""``python -m hvd_utils.scaling``: what it prints, writes, reads and refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hvd_utils.cli.errors import BadInput
from hvd_utils.run.event_log import METRICS
from hvd_utils.scaling.__main__ import main
from hvd_utils.scaling.measured import read_step
from hvd_utils.scaling.stragglers import expected_maximum
from hvd_utils.scaling.text import network_answer


def test_without_options_it_shows_the_papers_cluster(capsys):
    main([])
    text = capsys.readouterr().out
    assert "ethernet-50" in text
    lines = [line.split() for line in text.splitlines()]
    assert [line[0] for line in lines if len(line) > 3 and line[2] == "ring"] == [
        "8", "16", "32", "64", "128", "256", "512", "1,024", "2,048", "4,096"
    ]  # fmt: skip
    assert "29.0 h" in text  # of 8 GPUs
    assert "16,384*" in text
    assert max(map(len, text.splitlines())) < 200


def test_figures_and_picture_are_written_and_questions_answered(tmp_path, capsys):
    figures, picture = tmp_path / "plan.json", tmp_path / "plan.png"
    questions = ["--network-for", "0.85", "--at", "512", "--stops-paying", "--validate"]
    main(["--gpus", "8,512", "--json", str(figures), "--plot", str(picture), *questions])
    text = capsys.readouterr().out
    assert "For 85 % on 512 GPUs" in text
    assert "stops paying" in text
    assert "paper, 256 P100" in text
    assert picture.stat().st_size > 10_000
    written = json.loads(figures.read_text())
    rows = written["predictions"]
    assert [(row["gpus"], row["algorithm"]) for row in rows][:2] == [
        (8, "ring"),
        (8, "tree"),
    ]
    for row in rows:
        parts = sum(row[part] for part in ("compute", "stragglers", "nodes", "network", "input"))
        assert row["seconds"] == pytest.approx(parts)
        assert row["efficiency"] <= 1.001
        if row["gpus"] > 8:
            low, high = row["efficiency_interval"]
            assert low < row["efficiency"] < high
    assert written["network_for"]["tree"]["preset"]
    assert written["stops_paying"]["same_kn"]["tree"] >= 8
    assert {"predicted", "published", "error"} <= set(written["validation"][0])


def test_what_is_typed_in_counts(capsys):
    typed = ["--seconds", "0.02", "--images", "64", "--network", "ndr-8x", "--links", "1"]
    main([*typed, "--spread", "0", "--algorithm", "tree", "--gpus", "1,2", "--compression", "fp16"])
    text = capsys.readouterr().out
    assert "51.1 MB" in text
    assert "368 of 400 Gbit/s" in text
    assert "3,200" in text  # images/s of one


@pytest.mark.parametrize(
    ("document", "images", "share", "fixed"),
    [
        (
            {
                "machine": "H200",
                "planner": {
                    "model": "resnet101",
                    "seconds_per_step": 0.05,
                    "images_per_step": 256,
                    "backward_share": 0.66,
                    "fixed_seconds": 0.003,
                },
            },
            256,
            0.66,
            0.003,
        ),
        ({"figures": {"seconds_per_step": 0.05, "images_per_step": 32}}, 32, 2 / 3, 0),
        ({"seconds_per_step": 0.05, "images_per_step": 32.0, "figures": {"a": 1}}, 32, 2 / 3, 0),
    ],
)
def test_a_benchmarks_json_is_read(tmp_path, document, images, share, fixed):
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps(document))
    step = read_step(path)
    assert (step.seconds, step.images, step.fixed_seconds) == (0.05, images, fixed)
    assert step.backward_share == pytest.approx(share)
    assert step.model == document.get("planner", {}).get("model", "resnet50")


def write_run(folder, *steps, start=True):
    folder.mkdir()
    begin = {"event": "start", "time": 1.0, "step": 0, "processes": 16, "minibatch": 1024}
    events = [begin] * start
    events += [{"event": "step", "time": 2.0, "step": 20 * i, **s} for i, s in enumerate(steps, 1)]
    (folder / METRICS).write_text("".join(json.dumps(event) + "\n" for event in events))
    (folder / "settings.yaml").write_text("model: resnet101\n")
    return folder


def test_a_run_tells_its_step_and_its_spread(tmp_path):
    steps = [
        {"images_per_second": 5000, "compute_seconds": [0.09, 0.1, 0.1 * most]}
        for most in (1.9, 1.05, 1.05)
    ]
    step = read_step(write_run(tmp_path / "run", *steps))
    assert (step.seconds, step.images, step.gpus, step.model) == (0.1, 64, 1, "resnet101")
    assert step.spread == pytest.approx(0.05 / expected_maximum(16))


def test_a_run_that_measured_no_parts_tells_its_step_on_all_its_gpus(tmp_path):
    step = read_step(write_run(tmp_path / "run", {"images_per_second": 5120}))
    assert (step.seconds, step.images, step.gpus, step.spread) == (0.2, 64, 16, None)


def test_an_interval_is_told_only_of_a_network_that_there_is():
    there, nowhere = (300.0, None), (None, None)
    for found, told in (({"ring": nowhere}, False), ({"ring": nowhere, "tree": there}, True)):
        head, *_ = network_answer(found, 0.85, 512)
        assert ("the run then has 78 to 92 %" in head) == told


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--network", "token-ring"], "token-ring"),
        (["--gpus", "0"], "0 is less than 1"),
        (["--gpus", "8,many"], "--gpus"),
        (["--model", "resnet9000"], "resnet9000"),
        (["--seconds", "0.1"], "--images"),
        (["--seconds", "-1", "--images", "32"], "--seconds"),
        (["--backward-share", "1.5"], "1.5"),
        (["--fixed-seconds", "9"], "fixed seconds"),
        (["--network-for", "0.9"], "--at"),
        (["--network-for", "90", "--at", "512"], "90"),
        (["--algorithm", "pigeons"], "pigeons"),
        (["--step", "/nowhere.json"], "/nowhere.json"),
        (["--json", "/nowhere/plan.json"], "/nowhere"),
        (["--plot", "plan.doc"], "plan.doc"),
        (["--speed", "9"], "--speed"),
    ],
)
def test_what_cannot_be_is_named(arguments, names):
    with pytest.raises(BadInput) as error:
        main(arguments)
    assert names in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("not json", "is not JSON"),
        ("[1, 2]", "seconds_per_step"),
        ('{"figures": {"ratio": 0.98}}', "seconds_per_step"),
        ('{"seconds_per_step": "fast", "images_per_step": 32}', "'fast'"),
        ('{"seconds_per_step": 0, "images_per_step": 32}', "cannot be 0"),
        ('{"seconds_per_step": 0.1, "images_per_step": 0}', "cannot be 0"),
    ],
)
def test_a_file_that_is_not_ours_is_named(tmp_path, text, names):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(BadInput, match="other.json") as error:
        read_step(path)
    assert names in str(error.value)


def test_a_folder_without_steps_is_named(tmp_path):
    with pytest.raises(BadInput, match="not the folder of a run"):
        read_step(tmp_path)
    with pytest.raises(BadInput, match="logged no step"):
        read_step(write_run(tmp_path / "run"))


def test_bad_input_is_one_line_and_code_2():
    command = [sys.executable, "-m", "hvd_utils.scaling", "--network", "token-ring"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: no network token-ring")
    assert len(done.stderr.splitlines()) == 1
