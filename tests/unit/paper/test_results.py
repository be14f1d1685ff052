"""The paper's figures: as they are printed, and found by a run's settings."""

import pytest

from hvd_utils.config.command_line import read_recipe
from hvd_utils.config.recipe import Recipe
from hvd_utils.paper.results import PRINTED, ROWS, STEP_SECONDS, find_reference
from hvd_utils.paper.schedule import make_schedule

IMAGENET = 1_281_167
SIZES = {"128": 128, "256": 256, "512": 512} | {f"{n}k": 1024 * n for n in (1, 2, 4, 8, 16, 32, 64)}

# Typed from the pages of arXiv 1706.02677v2, not from the code.
TABLES = {
    "Table 1": """
        baseline          8   256 0.1 23.60 ±0.12
        no warmup         256 8k  3.2 24.84 ±0.37
        constant warmup   256 8k  3.2 25.88 ±0.56
        gradual warmup    256 8k  3.2 23.74 ±0.09""",
    "Table 2a": """
        256 0.05        23.92 ±0.10
        256 0.10        23.60 ±0.12
        256 0.20        23.68 ±0.09
        8k  0.05 · 32   24.27 ±0.08
        8k  0.10 · 32   23.74 ±0.09
        8k  0.20 · 32   24.05 ±0.18
        8k  0.10        41.67 ±0.10
        8k  0.10 · √32  26.22 ±0.03""",
    "Table 2b": """
        256 0.1 1.0 23.84 ±0.18
        256 0.1 0.0 23.60 ±0.12
        8k  3.2 1.0 24.11 ±0.07
        8k  3.2 0.0 23.74 ±0.09""",
    "Table 2c": """
        ResNet-101 256 0.1 22.08 ±0.06
        ResNet-101 8k  3.2 22.36 ±0.09""",
    "Figure 3": """
        128  0.05 23.49 ±0.12
        256  0.1  23.60 ±0.12
        512  0.2  23.48 ±0.09
        1k   0.4  23.53 ±0.08
        2k   0.8  23.49 ±0.11
        4k   1.6  23.56 ±0.12
        8k   3.2  23.74 ±0.09
        16k  6.4  24.79 ±0.27
        32k  12.8 27.55 ±0.28
        64k  25.6 33.96 ±0.80""",
}
PAGES = {"Table 1": 7, "Table 2a": 10, "Table 2b": 10, "Table 2c": 10, "Figure 3": 8}
TABLE_3A = """
    256 0.1 23.60 35.9 ±0.1 33.9 ±0.1
    512 0.2 23.48 35.8 ±0.1 33.8 ±0.2
    1k  0.4 23.53 35.9 ±0.2 33.9 ±0.2
    2k  0.8 23.49 35.9 ±0.1 33.9 ±0.1
    4k  1.6 23.56 35.8 ±0.1 33.8 ±0.1
    8k  3.2 23.74 35.8 ±0.1 33.9 ±0.2
    16k 6.4 24.79 35.1 ±0.3 33.2 ±0.3"""
TABLE_3B = """
    1 2  2.5  1,280,000 35.7 33.6
    2 4  5.0  640,000   35.7 33.7
    4 8  10.0 320,000   35.7 33.5
    8 16 20.0 160,000   35.6 33.6"""


def words(table):
    return [line.replace("±", "").split() for line in table.strip().splitlines()]


@pytest.mark.parametrize("table", TABLES)
def test_the_rows_are_those_of_the_pages(table):
    rows = [row for row in ROWS if row.reference.source == table]
    errors = [tuple(map(float, line[-2:])) for line in words(TABLES[table])]
    assert [(row.reference.error, row.reference.std) for row in rows] == errors
    sizes = [
        next(SIZES[w] for w in reversed(line[:-2]) if w in SIZES) for line in words(TABLES[table])
    ]
    assert [row.minibatch for row in rows] == sizes
    assert {row.reference.page for row in rows} == {PAGES[table]}


def test_other_tables_are_those_of_the_pages():
    names = ("rate", "error", "box", "box_std", "mask", "mask_std")
    found = [[row["minibatch"], *(row[name] for name in names)] for row in PRINTED["transfer"]]
    assert found == [[SIZES[line[0]], *map(float, line[1:])] for line in words(TABLE_3A)]
    for row, line in zip(PRINTED["detection"], words(TABLE_3B), strict=True):
        gpus, minibatch, thousandths, steps, box, mask = (float(w.replace(",", "")) for w in line)
        assert (row["gpus"], row["minibatch"], row["steps"]) == (gpus, minibatch, steps)
        assert (1000 * row["rate"], row["box"], row["mask"]) == (thousandths, box, mask)
    assert [(r["minibatch"], r["error"]) for r in PRINTED["imagenet_5k"]] == [
        (256, 25.83),
        (8192, 26.09),
    ]


def test_seconds_of_a_step_follow_from_the_printed_times():
    epochs = 90 * IMAGENET
    assert pytest.approx(29 * 3600 / (epochs / 256), rel=2e-3) == STEP_SECONDS[8]
    assert pytest.approx(3600 / (epochs / 8192), rel=2e-3) == STEP_SECONDS[256]
    assert pytest.approx(1.12 * STEP_SECONDS[8]) == STEP_SECONDS[352]
    resnet101 = PRINTED["timing_resnet101"][0]["seconds"]
    assert pytest.approx(92.5 * 60 / (epochs / 8192), rel=2e-3) == resnet101


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.reference.source} {row.rate}")
def test_the_settings_of_a_row_train_at_its_rate(row):
    """And its recipe sets them, or is the paper's, to which workers are given."""
    recipe = Recipe(workers=row.workers, **row.settings)
    schedule = make_schedule(recipe, IMAGENET, row.minibatch)
    assert schedule(schedule.warmup_steps) == pytest.approx(row.rate)
    written = Recipe(**read_recipe(row.recipe))
    assert written.model_copy(update={"workers": row.workers}) == recipe


def figure(val_images=50_000, **settings):
    found = find_reference(Recipe(**settings).model_dump(mode="json"), val_images)
    return found and str(found)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"workers": 8}, "23.60 ± 0.12"),
        ({"workers": 8, "warmup": "none", "scaling": "none"}, "23.60 ± 0.12"),  # without effect
        ({"workers": 4}, "23.49 ± 0.12"),
        ({"workers": 256}, "23.74 ± 0.09"),
        ({"workers": 256, "seed": 7, "precision": "fp64"}, "23.74 ± 0.09"),
        ({"workers": 2048}, "33.96 ± 0.80"),
        ({"workers": 256, "warmup": "none"}, "24.84 ± 0.37"),
        ({"workers": 256, "warmup": "constant"}, "25.88 ± 0.56"),
        ({"workers": 8, "reference_rate": 0.05}, "23.92 ± 0.10"),
        ({"workers": 8, "reference_rate": 0.2}, "23.68 ± 0.09"),
        ({"workers": 256, "reference_rate": 0.05}, "24.27 ± 0.08"),
        ({"workers": 256, "reference_rate": 0.2}, "24.05 ± 0.18"),
        ({"workers": 256, "scaling": "none"}, "41.67 ± 0.10"),
        ({"workers": 256, "scaling": "sqrt"}, "26.22 ± 0.03"),
        ({"workers": 8, "zero_gamma": False}, "23.84 ± 0.18"),
        ({"workers": 256, "zero_gamma": False}, "24.11 ± 0.07"),
        ({"workers": 8, "model": "resnet101"}, "22.08 ± 0.06"),
        ({"workers": 256, "model": "resnet101"}, "22.36 ± 0.09"),
    ],
)
def test_figure_of_each_row(settings, error):
    assert figure(**settings) == error


@pytest.mark.parametrize(
    "settings",
    [
        {"workers": 256, "val_images": 360},  # not ImageNet
        {"workers": 256, "val_images": None},
        {"workers": 200},
        {"workers": 512, "batch_per_worker": 16},  # kn = 8,192, but another n
        {"workers": 256, "epochs": 18, "decay_epochs": (6, 12)},
        {"workers": 256, "warmup": "none", "zero_gamma": False},  # two controls at once
        {"workers": 4, "scaling": "none"},  # another rate below the reference
        {"workers": 128, "warmup": "constant"},
        {"workers": 256, "weight_decay": 5e-5},
        {"workers": 256, "label_smoothing": 0.1},
        {"workers": 1024, "optimizer": "lars"},
        {"workers": 256, "decay": "cosine"},
    ],
)
def test_the_paper_says_nothing_of_other_settings(settings):
    assert figure(**settings) is None
