"""The recipes of the paper's tables expect what the paper tells of their settings; LARS's rate."""

import re

import pytest

from hvd_utils.config.command_line import RECIPES, known_recipes, load_settings
from hvd_utils.paper.results import VAL_IMAGES, distinct_rows, find_reference
from hvd_utils.paper.schedule import make_schedule

IMAGENET = 1_281_167
TABLES = [name for name in known_recipes() if name.startswith("tables/")]


def reference(name):
    experiment = load_settings(["--recipe", name, "--data", "x"], {}).experiment()
    return find_reference(experiment, VAL_IMAGES)


@pytest.mark.parametrize("name", TABLES)
def test_a_recipe_expects_the_figure_of_its_settings(name):
    head = (RECIPES / f"{name}.yaml").read_text()
    expected = re.search(r"# Expected: ([^%]*) % top-1 error \((.*?)\), mean of 5", head)
    found = reference(name)
    assert expected.groups() == (str(found), found.source)
    assert f" {found.source} of Goyal" in head
    assert name.startswith(f"tables/{found.source.removeprefix('Table ')}-")
    assert f"--recipe {name} " in head


def test_every_row_of_the_tables_has_a_recipe():
    rows = [row for row in distinct_rows() if row.reference.source != "Figure 3"]
    assert {row.recipe: row.reference for row in rows} == {n: reference(n) for n in TABLES}


def test_lars_32k_has_the_published_rates():
    """Linearly to 32 in 14 epochs, then by a power of 2 to 0; the paper tells nothing of it."""
    recipe = load_settings(["--recipe", "lars-32k", "--data", "x"], {})
    minibatch = recipe.workers * recipe.batch_per_worker
    schedule = make_schedule(recipe, IMAGENET, minibatch)
    assert minibatch == 32_768
    assert schedule(547) == pytest.approx(32, rel=1e-9)  # 14 epochs
    assert schedule(2033) == pytest.approx(8, rel=2e-3)  # half of the way to 3,519
    assert schedule(3519) == 0
    assert reference("lars-32k") is None


def test_strikes_back_has_the_published_rates_and_average():
    """0.5 at 1,024 images, then to 0; torchvision's average forgets 54.6 times 0.00002 in 32."""
    recipe = load_settings(["--recipe", "strikes-back", "--data", "x", "--workers", "8"], {})
    schedule = make_schedule(recipe, IMAGENET, recipe.minibatch)
    steps = round(600 * IMAGENET / 1024)
    assert schedule(round(5 * IMAGENET / 1024) + 1) == pytest.approx(0.5, rel=1e-6)
    assert schedule(steps - 1) < 1e-9
    forgotten = (1 - 0.99998) * 8 * 128 * 32 / 600 / 32  # a step
    assert 1 - recipe.average_decay == pytest.approx(forgotten, rel=0.2)
    assert reference("strikes-back") is None


def test_strikes_back_augments_as_published():
    recipe = load_settings(["--recipe", "strikes-back", "--data", "x"], {})
    assert (recipe.augment, recipe.erase, recipe.mixup, recipe.cutmix) == ("trivial", 0.1, 0.2, 1.0)
    assert (recipe.label_smoothing, recipe.weight_decay) == (0.1, 0.00002)
    assert (recipe.resolution, recipe.val_resolution, recipe.val_resize) == (176, 224, 232)
    assert (recipe.nesterov, recipe.average) == (False, "ema")


def test_finetune_trains_all_layers_slowly_and_the_new_head_ten_times_as_fast():
    given = ["--recipe", "finetune", "--init", "weights.pth", "--data", "x", "--workers", "8"]
    recipe = load_settings(given, {})
    schedule = make_schedule(recipe, 25_600, recipe.minibatch)
    assert (recipe.minibatch, recipe.head_rate, recipe.freeze) == (256, 10, ())
    assert schedule(100) == pytest.approx(0.01, rel=0.01)  # after one epoch of warmup
    assert schedule(2999) < 1e-6  # of 30 epochs
    assert (recipe.momentum, recipe.nesterov) == (0.9, True)
