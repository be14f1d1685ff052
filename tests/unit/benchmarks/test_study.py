"""The study: its images, its settings beside the paper's, and how claims are judged."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from support.made_up_runs import write_run

from benchmarks.study.design import design
from benchmarks.study.images import SIDE, Size, draw, ensure_images, templates
from benchmarks.study.jobs import Job, TimeLeft
from benchmarks.study.rows import BY_NAME, BY_WORKERS, ROWS
from benchmarks.study.significance import LEVEL
from benchmarks.study.tables import as_json, lines
from benchmarks.study.verdicts import (
    CLAIMS,
    FAILS,
    HOLDS,
    LESS,
    MARGIN,
    NOT_WORSE,
    UNDECIDED,
    UNKNOWN,
    judge,
)
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


def outcome(
    *errors: float, train: tuple[float, ...] = (50.0, 10.0, 5.0), spread: float = 0.1
) -> Outcome:
    """Return an outcome of three seeds about one error, or of the errors given."""
    values = errors if len(errors) > 1 else (errors[0] - spread, errors[0], errors[0] + spread)
    seeds = dict(enumerate(values))
    curves = {
        seed: Curve(tuple(one + seed * spread for one in train), (error,) * len(train))
        for seed, error in seeds.items()
    }
    return Outcome(seeds, curves)


def paper_like() -> dict[str, Outcome]:
    return {
        "baseline": outcome(4.0),
        "gradual-warmup": outcome(4.02),
        "no-warmup": outcome(6.0),
        "constant-warmup": outcome(9.0),
        "sqrt": outcome(7.0),
        "unscaled": outcome(30.0),
        "gamma-1": outcome(5.0),
        "workers-16": outcome(3.98),
        "workers-64": outcome(12.0),
        "lars-64": outcome(4.5),
        "workers-64-polynomial": outcome(6.0),
    }


def verdicts(outcomes: dict[str, Outcome]) -> dict[str, str]:
    return {one.claim.text: one.verdict for one in judge(outcomes)}


def test_all_claims_hold_for_figures_like_the_papers():
    assert set(verdicts(paper_like()).values()) == {HOLDS}


OPPOSITES = [
    ("Table 1: 32 workers equal 1", "gradual-warmup", outcome(6.0)),
    ("Table 1: gradual warmup beats none", "no-warmup", outcome(2.0)),
    ("Table 1: none beats constant", "constant-warmup", outcome(4.0)),
    ("Table 2a: linear scaling beats the square root", "sqrt", outcome(2.0)),
    ("Table 2a: linear scaling beats none", "unscaled", outcome(2.0)),
    ("Table 2b: γ = 0 beats γ = 1 at 32 workers", "gamma-1", outcome(2.0)),
    (
        "Figure 2: training curves meet after warmup",
        "gradual-warmup",
        outcome(4.02, train=(50.0, 14.0, 9.0)),
    ),
    ("Figure 1: 16 workers equal 1", "workers-16", outcome(6.0)),
    ("Figure 1: 64 workers lose", "workers-64", outcome(2.0)),
    ("LARS beats SGD at 64 workers", "lars-64", outcome(15.0)),
    ("LARS beats SGD with its schedule", "workers-64-polynomial", outcome(2.0)),
]


def test_each_claim_has_an_opposite_here():
    assert [text for text, *_ in OPPOSITES] == [claim.text for claim in CLAIMS]


@pytest.mark.parametrize(("claim", "name", "instead"), OPPOSITES)
def test_a_claim_whose_opposite_is_found_does_not_hold(claim, name, instead):
    assert verdicts({**paper_like(), name: instead})[claim] == FAILS


@pytest.mark.parametrize(
    ("claim", "name", "instead"),
    [
        ("Table 1: 32 workers equal 1", "gradual-warmup", outcome(4.4, spread=0.4)),
        ("Table 2b: γ = 0 beats γ = 1 at 32 workers", "gamma-1", outcome(4.2, spread=0.4)),
        ("LARS beats SGD at 64 workers", "workers-64", outcome(5.0, 5.1, 95.0)),
    ],
)
def test_what_the_seeds_cannot_tell_is_undecided(claim, name, instead):
    assert verdicts({**paper_like(), name: instead})[claim] == UNDECIDED


@pytest.mark.parametrize(
    ("claim", "name", "instead", "verdict"),
    [
        ("Table 1: gradual warmup beats none", "no-warmup", outcome(4.3, spread=0.2), LESS),
        ("Table 2a: linear scaling beats the square root", "sqrt", outcome(3.8), LESS),
        ("Figure 1: 16 workers equal 1", "workers-16", outcome(3.5), NOT_WORSE),
    ],
)
def test_where_a_claim_is_undecided_less_may_be_found(claim, name, instead, verdict):
    found = next(one for one in judge({**paper_like(), name: instead}) if one.claim.text == claim)
    assert found.verdict == verdict
    assert found.p <= LEVEL < found.found.p


def test_a_claim_is_harder_to_find_among_others():
    pair = {"gradual-warmup": outcome(4.0, spread=0.2), "gamma-1": outcome(4.6, spread=0.2)}
    text = "Table 2b: γ = 0 beats γ = 1 at 32 workers"
    assert verdicts(pair)[text] == HOLDS
    others = {name: one for name, one in paper_like().items() if name not in pair}
    undecided = {"no-warmup": outcome(4.1, spread=0.4), "sqrt": outcome(4.1, spread=0.4)}
    assert verdicts({**others, **pair, **undecided})[text] == UNDECIDED


def test_one_seed_decides_nothing():
    single = Outcome({1: 4.0}, {1: Curve((50.0, 5.0), (4.0, 4.0))})
    found = verdicts({"gradual-warmup": single, "gamma-1": outcome(9.0)})
    assert found["Table 2b: γ = 0 beats γ = 1 at 32 workers"] == UNDECIDED
    assert found["Table 1: 32 workers equal 1"] == UNKNOWN


def test_claims_have_the_papers_effects():
    effects = [claim.effect for claim in CLAIMS]
    assert effects == [
        pytest.approx(effect) if effect else None
        for effect in (-0.14, 1.10, 1.04, 2.48, 17.93, 0.37, -0.14, 0.04, 1.19, None, None)
    ]
    assert pytest.approx(effects[1] / 2) == MARGIN


def test_tables_have_ours_beside_the_papers():
    outcomes = paper_like()
    text = "\n".join(lines(outcomes, judge(outcomes)))
    assert "| gradual warmup | 32 | 4.02 ± 0.10 | 23.74 ± 0.09 |" in text
    assert "| Table 1: 32 workers equal 1 | within 0.55 | -0.02 (-0.25 to +0.21) |" in text
    assert "| Table 2b: γ = 0 beats γ = 1 at 32 workers | +0.37 | +0.98 (+0.75 to +1.21) |" in text
    written = as_json(outcomes, judge(outcomes))
    assert written["table1"]["baseline"]["mean"] == pytest.approx(4.0)
    assert written["table1"]["baseline"]["std"] == pytest.approx(0.1)
    verdict = written["verdicts"]["Figure 1: 64 workers lose"]
    assert verdict["verdict"] == HOLDS
    assert verdict["found"]["difference"] == pytest.approx(8.0)
    assert set(written["lars"]) == {"lars-64", "workers-64-polynomial"}


def test_the_design_takes_spreads_from_runs_and_else_from_the_pilot():
    rows = design({"gradual-warmup": outcome(4.0, 4.1, 4.3), "gamma-1": outcome(5.0, 5.2, 5.6)})
    line = next(row for row in rows if "γ = 0" in row)
    assert "| 0.37 | 0.15, 0.31 | +1.00 of 3 |" in line
    assert "| within 0.55 | 0.15, 0.18 |" in next(row for row in rows if "32 workers equal" in row)


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
    assert not job.done
    write_run(job.output, epochs=2)
    with pytest.raises(BadInput, match="seed-1 was made with"):
        job.check()


def test_time_left_counts_cores():
    one, two = (Job(BY_NAME[name], 1, None, None) for name in ("baseline", "gradual-warmup"))
    left = TimeLeft(cores=2)
    assert left.seconds([one, two]) == 0
    left.took(one, 60)
    left.took(two, 40)
    assert left.seconds([one, two, two]) == (60 + 40 + 40) / 2


def test_figure_1_has_the_papers_minibatches():
    assert [256 * workers for workers in BY_WORKERS] == [256, 1024, 4096, 8192, 16384, 32768]
    assert all(256 * workers in BY_MINIBATCH for workers in BY_WORKERS)
