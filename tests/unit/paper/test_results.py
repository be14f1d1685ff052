"""The paper's figures, found by a run's settings."""

import pytest

from hvd_utils.config.recipe import Recipe
from hvd_utils.paper.results import find_reference


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
        ({"workers": 256, "reference_rate": 0.05}, "24.27"),
        ({"workers": 256, "reference_rate": 0.2}, "24.05"),
        ({"workers": 256, "scaling": "none"}, "41.67"),
        ({"workers": 256, "scaling": "sqrt"}, "26.22"),
        ({"workers": 8, "zero_gamma": False}, "23.84"),
        ({"workers": 256, "zero_gamma": False}, "24.11"),
        ({"workers": 8, "model": "resnet101"}, "22.08"),
        ({"workers": 256, "model": "resnet101"}, "22.36"),
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
