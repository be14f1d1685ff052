"""The study: its images, its settings beside the paper's, and how claims are judged."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from support.made_up_runs import write_run

from benchmarks.study.images import SIDE, Size, draw, ensure_images, templates
from benchmarks.study.jobs import Job, TimeLeft
from benchmarks.study.rows import BY_NAME, BY_WORKERS, ROWS
from benchmarks.study.tables import as_json, lines
from benchmarks.study.verdicts import FAILS, HOLDS, NOISE, UNKNOWN, better, equal, judge
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.command_line import load_settings
from hvd_utils.inspect.outcome import Curve, Outcome, read_outcome
from hvd_utils.paper.results import BY_MINIBATCH


def test_images_follow_from_the_seed_and_belong_to_their_class(tmp_path):
    size = Size(classes=4, train=40, val=8)
    one, again, other = (
        ensure_images(tmp_path / name, size, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    files = sorted(path.relative_to(one) for path in one.rglob("*.jpg"))
    assert len(files) == 48
    assert all((one / file).read_bytes() == (again / file).read_bytes() for file in files)
    assert any((one / file).read_bytes() != (other / file).read_bytes() for file in files)
    assert Image.open(one / files[0]).size == (SIDE, SIDE)
    assert len(list((one / "train").iterdir())) == len(list((one / "val").iterdir())) == 4


def test_images_have_an_error_to_lose():
    """The template that fits best in any shift is mostly, but not always, the image's own."""
    shapes = templates(classes=20, seed=1)
    labels = np.arange(200) % 20
    pixels = draw(labels, shapes, np.random.default_rng(3)).astype(np.float32) - 128
    shifts = shapes.shape[1] - SIDE + 1
    scores = [
        np.einsum("nhwc,khwc->nk", pixels, shapes[:, y : y + SIDE, x : x + SIDE])
        for y in range(shifts)
        for x in range(shifts)
    ]
    wrong = (np.max(scores, axis=0).argmax(axis=1) != labels).mean()
    assert 0.01 < wrong < 0.6


def test_every_setting_is_a_command_line_and_differs_from_the_others(tmp_path):
    seen = set()
    for row in ROWS:
        settings = load_settings(Job(row, 1, tmp_path, tmp_path).flags, {})
        assert settings.workers == row.workers
        seen.add(settings.model_dump_json(exclude={"output"}))
    assert len(seen) == len(ROWS)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("baseline", 23.60),
        ("gradual-warmup", 23.74),
        ("constant-warmup", 25.88),
        ("sqrt", 26.22),
        ("double-rate", 24.05),
        ("gamma-1", 24.11),
        ("baseline-gamma-1", 23.84),
        ("workers-128", 27.55),
    ],
)
def test_the_papers_figure_stands_beside_its_setting(name, error):
    assert BY_NAME[name].paper.error == error


def outcome(*errors: float, train: tuple[float, ...] = (50.0, 10.0, 5.0)) -> Outcome:
    seeds = dict(enumerate(errors))
    return Outcome(
        seeds, {seed: Curve(train, (error,) * len(train)) for seed, error in seeds.items()}
    )


LOW, SAME, HIGH = outcome(3.9, 4.0, 4.1), outcome(4.0, 4.1, 4.2), outcome(5.9, 6.0, 6.1)


def test_better_needs_more_than_the_noise():
    assert better(LOW, HIGH) == HOLDS
    assert better(HIGH, LOW) == FAILS
    assert better(LOW, SAME) == NOISE
    assert better(outcome(4.0), outcome(4.1)) == HOLDS  # one seed has no spread


def test_runs_that_diverge_are_worse_than_all_that_do_not():
    steady, diverging = outcome(4.0, 4.1, 4.2, 4.3, 4.4), outcome(8.0, 9.0, 9.0, 10.0, 95.0)
    assert better(steady, diverging) == HOLDS
    assert better(diverging, steady) == FAILS
    assert better(outcome(4.0, 4.1), outcome(8.0, 95.0)) == NOISE  # too few to say
    assert not equal(steady, diverging)


def test_equal_is_within_the_spread_of_runs():
    assert equal(LOW, SAME)
    assert not equal(LOW, HIGH)
    assert equal(outcome(4.0), outcome(4.4))
    assert not equal(outcome(4.0), outcome(5.0))


def paper_like() -> dict[str, Outcome]:
    worse = outcome(12.0, 13.0, 12.5)
    return {
        "baseline": LOW,
        "gradual-warmup": SAME,
        "no-warmup": outcome(4.6, 4.7, 4.8),
        "constant-warmup": worse,
        "sqrt": outcome(5.0, 5.1, 5.2),
        "unscaled": worse,
        "gamma-1": outcome(4.5, 4.6, 4.7),
        "workers-64": HIGH,
        "lars-64": SAME,
    }


def test_all_claims_hold_for_figures_like_the_papers():
    assert {one.verdict for one in judge(paper_like())} == {HOLDS}


@pytest.mark.parametrize(
    ("claim", "name", "instead"),
    [
        ("large equals small within the spread", "gradual-warmup", HIGH),
        ("gradual beats none beats constant", "no-warmup", outcome(14, 15, 16)),
        ("scaled beats unscaled and square root", "sqrt", LOW),
        ("γ = 0 helps", "gamma-1", outcome(3.0, 3.1, 3.2)),
        (
            "training curves match after warmup",
            "gradual-warmup",
            outcome(4.0, 4.1, 4.2, train=(50.0, 10.0, 9.0)),
        ),
        ("there is an elbow", "workers-64", SAME),
        ("LARS moves the elbow out", "lars-64", outcome(8.0, 8.1, 8.2)),
    ],
)
def test_a_claim_that_does_not_hold_is_told_so(claim, name, instead):
    found = {one.claim: one.verdict for one in judge({**paper_like(), name: instead})}
    assert found[claim] != HOLDS


def test_what_was_not_measured_is_told_so():
    found = {one.claim: one for one in judge({"baseline": LOW, "gradual-warmup": SAME})}
    assert found["large equals small within the spread"].verdict == HOLDS
    assert found["γ = 0 helps"].verdict == UNKNOWN
    assert "gamma-1" in found["γ = 0 helps"].because


def test_tables_have_ours_beside_the_papers():
    outcomes = paper_like()
    text = "\n".join(lines(outcomes, judge(outcomes)))
    assert "| gradual warmup | 32 | 4.10 ± 0.10 | 23.74 ± 0.09 |" in text
    written = as_json(outcomes, judge(outcomes))
    assert written["table1"]["baseline"]["mean"] == pytest.approx(4.0)
    assert written["table1"]["baseline"]["std"] == pytest.approx(0.1)
    assert written["verdicts"]["there is an elbow"]["verdict"] == HOLDS
    assert set(written["lars"]) == {"lars-64"}


def test_an_outcome_is_read_from_folders(tmp_path):
    runs = {seed: write_run(tmp_path / str(seed), seed=seed, epochs=6) for seed in (1, 2)}
    found = read_outcome(runs)
    assert set(found.errors) == {1, 2}
    assert [len(curve.train) for curve in found.curves.values()] == [6, 6]
    assert len(found.train_curve()) == 6
    assert found.mean == pytest.approx(sum(found.errors.values()) / 2)


def test_a_run_of_other_settings_is_refused(tmp_path):
    job = Job(BY_NAME["baseline"], 1, tmp_path, tmp_path)
    job.check()  # nothing there
    assert job.seconds() is None
    write_run(job.output, epochs=2)
    with pytest.raises(BadInput, match="seed-1 was made with"):
        job.check()


def test_time_left_counts_cores():
    one, two = (Job(BY_NAME[name], 1, None, None) for name in ("baseline", "gradual-warmup"))
    left = TimeLeft(cores=2)
    assert left.seconds([one, two]) == 0
    left.took(one, 60)  # on one core
    left.took(two, 20)  # on both
    assert left.seconds([one, two, two]) == (60 + 40 + 40) / 2


def test_figure_1_has_the_papers_minibatches():
    assert [256 * workers for workers in BY_WORKERS] == [256, 1024, 4096, 8192, 16384, 32768]
    assert all(256 * workers in BY_MINIBATCH for workers in BY_WORKERS)
