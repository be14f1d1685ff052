"""The paper's figure over several runs."""

import json
import statistics
import subprocess
import sys

import pytest
import yaml
from support.launching import REPOSITORY

from hvd_utils.cli.errors import BadInput
from hvd_utils.inspect import final

ERRORS = [90.0, 30.0, 25.0, 21.0, 24.0, 22.0, 23.0]  # the last five: median 23


def write_run(folder, errors=ERRORS, val_images=50, **settings):
    folder.mkdir()
    values = {"recipe": "paper", "workers": 8, "epochs": 7, "decay_epochs": [3, 6], "seed": 1}
    (folder / "settings.yaml").write_text(yaml.safe_dump(values | settings))
    lines = [{"event": "start", "step": 0}]
    lines += [
        {"event": "epoch", "epoch": n, "val_top1_error": error, "val_images": val_images}
        for n, error in enumerate(errors)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def run(*arguments):
    final.main([str(argument) for argument in arguments])


def test_mean_and_sample_deviation_of_each_runs_median(tmp_path, capsys):
    shifts = (0.0, 0.3, -0.4)
    runs = [
        write_run(tmp_path / f"s{n}", [e + d for e in ERRORS], seed=n, data=f"/disk{n}")
        for n, d in enumerate(shifts)
    ]
    run(*runs, "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    medians = [23.0, 23.3, 22.6]
    assert [r["top1_error"] for r in figures["runs"]] == pytest.approx(medians)
    assert figures["mean_top1_error"] == pytest.approx(sum(medians) / 3)
    assert figures["std_top1_error"] == pytest.approx(statistics.stdev(medians))
    assert "top-1 error 22.97 ± 0.35 % over 3 runs" in capsys.readouterr().out


def test_unfinished_runs_are_named_and_left_out(tmp_path, capsys):
    done, short = write_run(tmp_path / "done"), write_run(tmp_path / "short", ERRORS[:4], seed=2)
    run(done, short)
    output = capsys.readouterr().out
    assert f"left out: {short} has finished 4 of 7 epochs" in output
    assert "top-1 error 23.00 % over 1 run (of each the median of the last 5 epochs)" in output
    with pytest.raises(BadInput, match="no run has finished"):
        run(short)
    with pytest.raises(BadInput, match=f"cannot write {tmp_path}: Is a directory"):
        run(done, "--json", tmp_path)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"weight_decay": 5e-5}, "--weight-decay is 0.0001 in .* but 5e-05 in "),
        ({"decay_epochs": [3, 5]}, "--decay-epochs is "),
        ({"val_images": 49}, "validated on 50 images, .* on 49"),
        ({"seed": 1}, "the same --seed 1"),
        ({"init": "x.pth", "init_checksum": "sha256:ab"}, "--init is None in .* but sha256:ab in "),
    ],
)
def test_runs_that_are_not_the_same_experiment_are_refused(tmp_path, other, words):
    runs = write_run(tmp_path / "a"), write_run(tmp_path / "b", **({"seed": 2} | other))
    with pytest.raises(BadInput, match=words):
        run(*runs)


def test_the_same_weights_to_start_from_may_lie_anywhere(tmp_path, capsys):
    runs = [
        write_run(tmp_path / f"s{n}", seed=n, init=f"/disk{n}/x.pth", init_checksum="sha256:ab")
        for n in range(2)
    ]
    run(*runs)
    assert "over 2 runs" in capsys.readouterr().out


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(BadInput, match=f"{tmp_path} is not the folder of a run"):
        run(tmp_path)


def test_figures_need_no_torch():
    program = "import sys, hvd_utils.final; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY).returncode == 0
