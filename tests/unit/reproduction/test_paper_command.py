"""``python -m hvd_utils.paper``: what runs are found to be, what is missing, what is drawn."""

from __future__ import annotations

import pytest
from support.made_up_runs import write_run

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.command_line import load_settings
from hvd_utils.paper.__main__ import main
from hvd_utils.paper.results import PRINTED, distinct_rows, find_row
from hvd_utils.reproduction.collected import collect, command, missing
from hvd_utils.reproduction.detection import PUBLISHED, detection_command
from hvd_utils.reproduction.plan import predict_run
from hvd_utils.scaling.published import PAPER_CLUSTER, PAPER_STEP

ROWS = distinct_rows()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.arguments)
def test_a_rows_command_trains_its_setting(row):
    words = command(row, seed=3).split()
    settings = load_settings(words[words.index("--recipe") :], {})
    assert (settings.workers, settings.seed) == (row.workers, 3)
    assert find_row(settings.experiment(), 50_000) == row


def test_runs_are_sorted_by_setting_and_the_rest_is_told(tmp_path):
    runs = [
        write_run(tmp_path / "a", seed=1, steps_per_epoch=1),
        write_run(tmp_path / "b", seed=3, steps_per_epoch=1),
        write_run(tmp_path / "again", seed=3, steps_per_epoch=1),
        write_run(tmp_path / "other", seed=2, steps_per_epoch=1, weight_decay=5e-5),
        write_run(tmp_path / "digits", seed=2, steps_per_epoch=1, val_images=360),
        write_run(tmp_path / "part", seed=2, steps_per_epoch=1, done=4),
    ]
    found = collect(runs)
    assert {name: set(one.errors) for name, one in found.outcomes.items()} == {
        "--recipe tables/1-gradual-warmup": {1, 3}
    }
    assert [line.split(":")[0].rpartition("/")[2] for line in found.left_out] == [
        "again",
        "other",
        "digits",
        "part",
    ]
    absent = list(missing(found))
    assert len(absent) == len(ROWS)
    gradual = next(line for line in absent if "1-gradual" in line)
    assert gradual.startswith("Table 1, seeds 2, 4, 5:")


def test_a_whole_setting_is_not_missing(tmp_path):
    seeds = (2, 3, 4, 5, 9)  # whichever
    runs = [write_run(tmp_path / str(s), seed=s, steps_per_epoch=1) for s in seeds]
    assert not [line for line in missing(collect(runs)) if "1-gradual" in line]


def test_everything_is_drawn_from_what_is_there(tmp_path, capsys):
    runs = [
        write_run(tmp_path / "a", steps_per_epoch=2, final=23.7),
        write_run(tmp_path / "b", steps_per_epoch=2, final=24.4, workers=8, reference_rate=0.2),
    ]
    out = tmp_path / "made/figures"
    main(["figures", *map(str, runs), "--out", str(out)])
    names = {"tables.md", "figures7-8.png", *(f"figure{n}.png" for n in range(1, 6))}
    assert {path.name for path in out.iterdir()} == names
    text = capsys.readouterr().out
    assert "2 runs of the 110" in text
    row = next(line for line in text.splitlines() if "reference_rate 0.2" in line)
    assert "23.68 ± 0.09 | 24." in row
    assert "| 1 of 5 |" in row
    assert (out / "tables.md").read_text().startswith("**Table 1, page 7")


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(BadInput, match="not the folder of a run"):
        main(["figures", str(tmp_path)])
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="set --out elsewhere"):
        main(["figures", "--out", str(tmp_path / "file")])
    with pytest.raises(BadInput, match="--nonsense"):
        main(["plan", "--nonsense"])
    with pytest.raises(BadInput, match="--nonsense"):
        main(["figures", "--nonsense"])


def test_the_plan_costs_what_the_paper_took(capsys):
    """29 h on 8 GPUs; ResNet-101 on 256 GPUs 1.54 times as long as ResNet-50."""
    hours = {row.recipe: predict_run(row, PAPER_STEP, PAPER_CLUSTER, 256).hours(90) for row in ROWS}
    assert hours["tables/1-baseline"] == pytest.approx(29, rel=0.01)
    ratio = hours["tables/2c-resnet101-8k"] / hours["tables/1-gradual-warmup"]
    assert ratio == pytest.approx(92.5 / 60, rel=0.02)


def test_fewer_gpus_carry_several_workers_each():
    row = next(row for row in ROWS if row.minibatch == 8192)
    run = predict_run(row, PAPER_STEP, PAPER_CLUSTER, 8)
    assert (run.gpus, run.minibatch) == (8, 8192)
    assert run.hours(90) == pytest.approx(29, rel=0.03)


def test_the_plan_names_every_setting(capsys):
    main(["plan", "--most-gpus", "64", "--network", "edr"])
    text = capsys.readouterr().out
    assert all(command(row) in text for row in ROWS)
    for row in PRINTED["transfer"]:
        assert f" --init RUN-{row['minibatch']} " in text
    for row in PRINTED["detection"]:
        assert detection_command(row["gpus"], PUBLISHED) in text
    assert "on edr" in text
    assert " 256  " not in [line[18:24] for line in text.splitlines()]
