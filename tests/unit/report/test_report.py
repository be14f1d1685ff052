"""The report of runs: what it reads, says and refuses."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.launching import REPOSITORY
from support.made_up_runs import write_run

from hvd_utils.cli.errors import BadInput
from hvd_utils.report.__main__ import main
from hvd_utils.report.html import Html, tag
from hvd_utils.report.panel import spread_out
from hvd_utils.report.pictures import draw
from hvd_utils.report.series import differing, envelope, read_runs, short_names, thin
from hvd_utils.report.series import tag as letter
from hvd_utils.report.words import final_figures, percent, standing
from hvd_utils.run.event_log import METRICS

SHORT = {"epochs": 12, "decay_epochs": (4, 8)}


def report(*arguments):
    main([str(argument) for argument in arguments])


def pictures(*folders):
    return {panel.name: panel for panel in draw(read_runs(folders, 0.0))}


def test_a_page_of_one_run_stands_alone_and_escapes_names(tmp_path, capsys):
    odd = "<img src=x onerror=alert(1)>&\"'$x$_"
    run = write_run(tmp_path / odd, restarts=(300,), slow_rank=13, data="</script><b>")
    report(run)
    out = run / "report.html"
    assert capsys.readouterr().out == f"{out}\n"
    page = out.read_text()
    assert "<img" not in page
    assert "&lt;img src=x" in page
    assert page.count("</script>") == page.count("<script")
    addresses = set(re.findall(r"https?://[^\"' <]*", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    targets = re.findall(r'(?:url\(|href=")#([^")]*)', page)
    assert targets
    assert set(targets) <= set(ids)
    assert "23.74 ± 0.09 %" in page  # the paper's
    assert "rank 13 (node07), reading images" in page
    for title in ("Training loss over epochs", "Top-1 error over time", "Learning rate"):
        assert title in page


def test_runs_of_one_setting_are_averaged_and_set_beside_the_paper(tmp_path):
    folders = [write_run(tmp_path / f"s{n}", seed=n, final=23.5 + n / 10) for n in range(3)]
    folders.append(write_run(tmp_path / "short", seed=9, done=40, end=False))
    folders.append(write_run(tmp_path / "cold", warmup="none"))
    runs = read_runs(folders, 0.0)
    large, cold = final_figures(runs)
    medians = [run.result.final_error for run in runs[:3]]
    assert large.mean == pytest.approx(np.mean(medians))
    assert large.std == pytest.approx(np.std(medians, ddof=1))
    assert "not finished: D" in large.note
    assert str(large.reference) == "23.74 ± 0.09"
    assert (cold.std, cold.reference.error) == (None, 24.84)
    assert percent(large.mean, 0.1) == f"{large.mean:.2f} ± 0.10 %"


def test_no_spread_of_equal_seeds_and_no_mean_over_different_data(tmp_path):
    folders = [write_run(tmp_path / f"r{n}", **SHORT) for n in range(2)]
    [figure] = final_figures(read_runs(folders, 0.0))
    assert figure.std is None
    assert "same seed" in figure.note
    folders = [write_run(tmp_path / f"d{n}", seed=n, val_images=10 + n, **SHORT) for n in range(2)]
    [figure] = final_figures(read_runs(folders, 0.0))
    assert figure.mean is None
    assert "different data" in figure.note


def test_differing_settings_are_listed_and_nothing_else(tmp_path):
    folders = [
        write_run(tmp_path / "a", seed=1, output="/a", **SHORT),
        write_run(tmp_path / "b", seed=2, warmup="none", output="/b", **SHORT),
    ]
    found = differing(read_runs(folders, 0.0))
    assert found == {"seed": [1, 2], "warmup": ["gradual", "none"]}


def test_error_by_minibatch_is_drawn_where_kn_alone_differs(tmp_path):
    folders = [write_run(tmp_path / f"k{k}", workers=k) for k in (8, 256)]
    lines = {line.label: line for line in pictures(*folders)["minibatch"].lines}
    assert lines["A"].x == [256]
    assert lines["B"].x == [8192]
    assert len(lines["paper"].x) == 10
    folders[1] = write_run(tmp_path / "other", workers=256, warmup="none")
    assert "minibatch" not in pictures(*folders)


def test_an_interrupted_run_with_half_a_line_is_shown_as_far_as_it_came(tmp_path):
    run = write_run(tmp_path / "run", done=7, end=False, **SHORT)
    with (run / METRICS).open("a") as file:
        file.write('{"event": "step", "ti')
    [shown] = read_runs([run], 10.0**10)
    assert standing(shown)[0] == "interrupted"
    assert len(shown.epochs) == 7
    loss = pictures(run)["loss-epochs"].lines[0]
    assert loss.x[-1] == pytest.approx(7.0)


def test_a_run_in_its_first_epoch_has_an_axis(tmp_path):
    run = write_run(tmp_path / "run", steps_per_epoch=100, done=1, end=False, **SHORT)
    lines = (run / METRICS).read_text().splitlines()
    (run / METRICS).write_text("\n".join(lines[:2]) + "\n")  # its start and one step
    found = pictures(run)
    assert found["loss-epochs"].lines[0].x == pytest.approx([0.01])  # by its number of steps
    assert "error-end" not in found
    # Where it ends early, the length of an epoch is not known before one is over.
    cut = write_run(tmp_path / "cut", max_steps=50, done=1, end=False, **SHORT)
    lines = (cut / METRICS).read_text().splitlines()
    (cut / METRICS).write_text("\n".join(lines[:4]) + "\n")
    assert pictures(cut)["loss-steps"].lines[0].x.tolist() == [1, 2, 3]


def test_time_leaves_out_the_pauses_between_launches(tmp_path):
    run = tmp_path / "run"
    write_run(run, restarts=(50,), **SHORT)
    events = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    again = next(n for n, e in enumerate(events) if e["event"] == "start" and e["step"])
    for event in events[again:]:
        event["time"] += 86400
    (run / METRICS).write_text("".join(json.dumps(event) + "\n" for event in events))
    [shown] = read_runs([run], 0.0)
    assert shown.seconds[-1] == pytest.approx(120 * 0.26, rel=0.02)
    assert [launch.step for launch in shown.restarts] == [50]
    marks = [line for line in pictures(run)["rate"].axes.lines if line.get_marker() == "^"]
    assert [mark.get_xdata() for mark in marks] == [[5.0]]


def test_thinning_keeps_means_and_the_envelope_keeps_extremes():
    x = np.arange(100_000.0)
    y = np.zeros(100_000)
    y[77_777] = 9.0
    y[3] = np.nan
    thin_x, thin_y = thin(400, x, y)
    assert len(thin_x) == len(thin_y) == 400
    assert np.isfinite(thin_y).all()
    assert thin_y.sum() == pytest.approx(9.0 / 250)
    low, high = envelope(400, y)
    assert (np.nanmin(low), np.nanmax(high)) == (0.0, 9.0)
    assert thin(400, x[:10])[0] is not None
    assert len(thin(400, x[:10])[0]) == 10


def test_labels_are_moved_apart_in_their_order():
    places = spread_out([0.0, 0.0, 0.01, 0.5, 0.9, 0.91], 0.05)
    assert np.all(np.diff(places) > 0.05 - 1e-9)
    assert places[0] == 0
    assert places[3] == 0.5


def test_letters_and_names_tell_runs_apart(tmp_path):
    assert [letter(n) for n in (0, 25, 26, 701, 702)] == ["A", "Z", "AA", "ZZ", "AAA"]
    folders = [tmp_path / "x" / "seed-1", tmp_path / "y" / "seed-1"]
    assert short_names(folders) == ["x/seed-1", "y/seed-1"]


def test_html_escapes_all_but_html():
    built = tag("p", "a<b", Html("<br>"), None, ["&"], class_="x", aria_label='"')
    assert built == '<p class="x" aria-label="&quot;">a&lt;b<br>&amp;</p>'


def test_text_for_a_terminal_and_pictures_as_png(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("a", 1), ("b", 2)):
        write_run(tmp_path / name, seed=seed, **SHORT)
    report("a", "b", "--terminal")
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()) <= 80
    assert re.search(r"^loss +\d\.\d+ █[▁▂▃▄▅▆▇█]{39} \d\.\d+$", text, re.MULTILINE)
    assert re.search(r"A, B +2\d\.\d\d ± 0\.\d\d % over 2 runs", text)
    assert not list(tmp_path.rglob("report.html"))
    report("a", "b", "--terminal", "--png", "png")
    with Image.open(tmp_path / "png" / "error-epochs.png") as picture:
        assert picture.width > 1000
        assert picture.convert("RGBA").getpixel((2, 2)) == (255, 255, 255, 255)
        assert len(picture.convert("RGB").getcolors(10**6)) > 20


def test_what_is_no_run_or_cannot_be_written_is_named(tmp_path):
    with pytest.raises(BadInput, match="nothing is not the folder of a run"):
        report(tmp_path / "nothing")
    run = write_run(tmp_path / "run", **SHORT)
    with pytest.raises(BadInput, match=r"cannot write .*/no/page.html: No such file"):
        report(run, "--out", tmp_path / "no" / "page.html")
    (run / METRICS).write_text((run / METRICS).read_text().splitlines()[0] + "\n")
    with pytest.raises(BadInput, match="run has logged no step yet"):
        report(run)


def test_bad_input_ends_with_code_2_and_a_line_and_no_torch_is_needed(tmp_path):
    command = [sys.executable, "-m", "hvd_utils.report", str(tmp_path)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {tmp_path} is not the folder of a run")
    assert ended.stderr.count("\n") == 1
    program = (
        "import sys, hvd_utils.report.page, hvd_utils.report.terminal;"
        "sys.exit(bool({'torch', 'horovod', 'nvidia.dali'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY).returncode == 0
