"""Measured curves: gathered from runs, read, shown and refused."""

from __future__ import annotations

import json

import pytest
from support.made_up_runs import write_run

from hvd_utils.cli.errors import BadInput
from hvd_utils.paper.__main__ import main as paper
from hvd_utils.run.event_log import METRICS
from hvd_utils.scaling.__main__ import main as planner
from hvd_utils.scaling.measured import efficiency, main, point_of, read_curve


def write_curve(path, *points, **changed):
    fields = {"images": 32, "model": "resnet50"} | changed
    rows = [{"gpus": g, "seconds": s, "input": kind, **fields} for g, s, kind in points]
    path.write_text(json.dumps({"points": rows}))
    return path


def test_a_point_is_the_median_without_the_first_window(tmp_path, capsys):
    run = write_run(tmp_path / "run", steps_per_epoch=4, done=1, loader="synthetic")
    events = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    rates = iter((1.0, 40_000.0, 32_000.0, 8_000.0))
    for event in events:
        if event["event"] == "step":
            event["images_per_second"] = next(rates)
    (run / METRICS).write_text("".join(json.dumps(event) + "\n" for event in events))
    point = point_of(run)
    assert (point.gpus, point.images, point.input) == (256, 32, "synthetic")
    assert point.seconds == pytest.approx(8192 / 32_000)
    assert point.images_per_second == pytest.approx(32_000)
    main([str(run), "--json", str(tmp_path / "curve.json")])
    assert read_curve(tmp_path / "curve.json") == [point]
    assert "256 GPUs, synthetic:    256.0 ms a step, 32,000 images/s" in capsys.readouterr().out


def test_a_run_that_was_stopped_near_its_end_keeps_its_point(tmp_path):
    """The windows of all launches count, but for the first of each."""
    run = write_run(tmp_path / "run", steps_per_epoch=4, done=1)
    events = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    start = next(event for event in events if event["event"] == "start")
    last = [event for event in events if event["event"] == "step"][-1]
    events.insert(events.index(last), start)
    for event, rate in zip([e for e in events if e["event"] == "step"], (1, 4, 2, 9), strict=True):
        event["images_per_second"] = 8192.0 * rate
    (run / METRICS).write_text("".join(json.dumps(event) + "\n" for event in events))
    assert point_of(run).seconds == pytest.approx(1 / 3)


def test_efficiency_is_against_the_fewest_gpus_of_the_same_input(tmp_path):
    points = read_curve(
        write_curve(
            tmp_path / "c.json",
            (16, 0.5, "data"), (8, 0.2, "synthetic"), (64, 0.25, "synthetic"), (8, 0.4, "data"),
        )
    )  # fmt: skip
    assert [(point.input, point.gpus) for point in points] == [
        ("synthetic", 8), ("synthetic", 64), ("data", 8), ("data", 16),
    ]  # fmt: skip
    assert [efficiency(point, points) for point in points] == pytest.approx([1, 0.8, 1, 0.8])


def test_the_planner_begins_with_the_fewest_gpus_and_shows_both(tmp_path, capsys):
    curve = write_curve(
        tmp_path / "c.json", (8, 0.1, "synthetic"), (16, 0.125, "synthetic"), (16, 0.2, "data")
    )
    picture, figures = tmp_path / "c.png", tmp_path / "f.json"
    planner(["--measured", str(curve), "--plot", str(picture), "--json", str(figures)])
    text = capsys.readouterr().out
    assert "step       100 ms for n = 32 images on 8 GPUs" in text
    measured = text[text.index("predicted:") :].splitlines()[1:]
    assert [line.split()[:5] for line in measured] == [
        ["8", "synthetic", "100.0", "ms", "100.0"],
        ["16", "synthetic", "125.0", "ms", "80.0"],
        ["16", "data", "200.0", "ms", "100.0"],
    ]
    written = json.loads(figures.read_text())
    assert {row["gpus"] for row in written["predictions"]} == {8, 16}
    assert picture.stat().st_size > 10_000


def test_the_papers_figures_take_it_too(tmp_path, capsys):
    curve = write_curve(tmp_path / "c.json", (8, 0.1, "synthetic"), (48, 0.125, "synthetic"))
    paper(["figures", "--out", str(tmp_path / "out"), "--measured", str(curve)])
    assert (tmp_path / "out/figures7-8.png").stat().st_size > 10_000
    assert "slurm/scaling.sh" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not what slurm/scaling.sh writes"),
        ("[]", "is not what slurm/scaling.sh writes"),
        ('{"points": [{"gpus": 8}]}', "is not what slurm/scaling.sh writes"),
        ('{"points": []}', "one model and one n"),
    ],
)
def test_other_files_are_refused(tmp_path, text, said):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(BadInput, match=said):
        read_curve(tmp_path / "c.json")


def test_a_curve_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(BadInput, match="No such file"):
        read_curve(tmp_path / "none.json")
    with pytest.raises(BadInput, match="seconds of a step cannot be -1"):
        read_curve(write_curve(tmp_path / "c.json", (8, -1, "data")))
    curve = write_curve(tmp_path / "c.json", (8, 1, "data"))
    with pytest.raises(BadInput, match="not both"):
        planner(["--measured", str(curve), "--step", str(curve)])
    with pytest.raises(BadInput, match="fewer than two windows"):
        point_of(write_run(tmp_path / "run", steps_per_epoch=1, done=1))
