"""Recipe files: what is no YAML, no list of settings, or sets what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.odd_inputs import assert_ends, call, nothing_written, rows

import train_imagenet

# What odd.yaml holds, and what the one line has to say beside its name.
TEXTS = [
    ("model: caf\xe9".encode("latin-1"), "UTF-8"),
    ("epochs: 3".encode("utf-16"), "UTF-8"),
    (b"\0\0\0\0", "not YAML"),
    (b"\x89PNG\r\n\x1a\n\xff\xfe", "UTF-8"),
    (b"model:\n\tresnet8", "not YAML"),
    (b"epochs: [1, 2", "not YAML"),
    (b"epochs: 3\n---\nepochs: 4", "not YAML"),
    (b"<<: 3", "not YAML"),
    (b"? [epochs]\n: 3", "not YAML"),
    (b"epochs: !!python/object/apply:os.system ['touch written']", "not YAML"),
    (b"epochs: *none", "not YAML"),
    (b"epochs: !!int ninety", "odd.yaml"),
    (b"flip: !!bool perhaps", "odd.yaml"),
    (b"output: 2026-02-30", "odd.yaml"),
    (b"seed: " + b"9" * 5000, "odd.yaml"),
    (b"epochs: " + b"[" * 5000, "odd.yaml"),
    (b"- epochs: 3\n- model: resnet8", "'setting: value'"),
    (b"resnet8", "'setting: value'"),
    (b"3", "'setting: value'"),
    (b"epochs 3", "'setting: value'"),
    (b"epoch: 3", "unknown setting epoch", "did you mean epochs"),
    (b"Epochs: 3", "unknown setting Epochs"),
    (b"hw_decoder_load: 0.75", "hw_decoder_load in recipe", "which is gone", "--decode hardware"),
    (b"recipe: demo", "unknown setting recipe"),
    (b"1: 2", "unknown setting 1"),
    (b"null: 2", "unknown setting None"),
    (b"training: {epochs: 3}", "unknown setting training"),
]

# What it sets, and how the line names that.
VALUES = [
    ("epochs: 90.5", "--epochs 90.5", "whole number"),
    ("epochs: [3]", "--epochs", "whole number"),
    ("epochs: {a: 1}", "--epochs", "whole number"),
    ("epochs: null", "--epochs", "whole number"),
    ("epochs: ninety", "--epochs ninety", "whole number"),
    ("epochs: 2017-06-08", "--epochs 2017-06-08", "whole number"),
    ("epochs: [" + "1, " * 20_000 + "]", "--epochs", "whole number"),
    ("seed: 1e3", "--seed 1e3"),
    ("seed: -1", "--seed -1"),
    ("workers: 0", "--workers 0"),
    ("flip: maybe", "--flip maybe", "true or false"),
    ("flip: 2", "--flip 2", "true or false"),
    ("model: [resnet8]", "--model", "text"),
    ("model: 8", "--model 8", "text"),
    ("data: 5", "--data 5", "text"),
    ("eval_only: 3", "--eval-only 3", "path"),
    ("autotune: 3", "--autotune 3", "path"),
    ("checkpoint_every: [1]", "--checkpoint-every", "10min"),
    ("checkpoint_every: null", "--checkpoint-every", "10min"),
    ("checkpoint-every: 5 days", "--checkpoint-every 5 days", "no unit days"),
    ("decay_epochs: 30", "--decay-epochs 30"),
    ("decay_epochs: {1: 2}", "--decay-epochs"),
    ("decay_epochs: [30, x]", "--decay-epochs x", "number"),
    ("decay_epochs: [30, -1]", "--decay-epochs", "greater than 0"),
    ("resolution_ramp: 3", "--resolution-ramp"),
    ("reference_rate: .nan", "--reference-rate nan", "finite"),
    ("reference_rate: .inf", "--reference-rate inf", "finite"),
    ("reference_rate: 1,5", "--reference-rate 1,5", "number"),
    ("momentum: 0", "--momentum", "--no-nesterov"),
    ("epochs: x\nseed: y", "--epochs x", "--seed y"),
    ("model: resnet8", "needs images", "--data"),
    ("", "needs images", "--data"),
    ("# nothing yet", "needs images", "--data"),
]

NAMES = [
    ("none", "no recipe none", "demo, ", "lars-32k, "),
    ("../README", "no recipe ../README"),
    ("demo.yaml", "no recipe demo.yaml", "No such file"),
    ("Demo", "no recipe Demo"),
    ("demo.yml", "no recipe demo.yml"),
    ("demo\nstudy", "no recipe demo study"),
    ("tables", "no recipe tables", "one of tables/"),
    ("x" * 300, "no recipe xxx", "too long"),
    ("/dev/null", "no recipe /dev/null"),
    ("folder.yaml", "folder.yaml", "directory"),
    ("loop.yaml", "loop.yaml", "symbolic links"),
    ("dangling.yaml", "dangling.yaml", "No such file"),
]


def train(*arguments: object):
    run = ("--output", "run", "--max-steps", "2", "--loader-threads", "1", "--batch-per-worker", 4)
    return call(train_imagenet.main, *run, *arguments)


@pytest.mark.parametrize(
    ("text", "named"), [pytest.param(row[0], row[1:], id=repr(row[0])[:40]) for row in TEXTS]
)
def test_no_list_of_settings(here, text, named):
    (here / "odd.yaml").write_bytes(text)
    with nothing_written(here):
        assert_ends(train("--recipe", here / "odd.yaml"), 2, "recipe", *named)


@pytest.mark.parametrize(
    ("text", "named"), [pytest.param(row[0], row[1:], id=repr(row[0])[:40]) for row in VALUES]
)
def test_settings_that_cannot_be(here, text, named):
    (here / "odd.yaml").write_text(text)
    with nothing_written(here):
        assert_ends(train("--recipe", "odd.yaml"), 2, "odd.yaml", *named)


@pytest.mark.parametrize(("name", "named"), rows([(row[0], row[1:]) for row in NAMES]))
def test_no_such_recipe(here, name, named):
    (here / "folder.yaml").mkdir()
    (here / "loop.yaml").symlink_to("loop.yaml")
    (here / "dangling.yaml").symlink_to("none.yaml")
    with nothing_written(here):
        assert_ends(train("--recipe", name), 2, *named)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffmodel: resnet8",  # as some editors begin a file
        "model: resnet8\r\nseed: 3\r\n",
        "seed: 1\nseed: 2\nmodel: resnet8",  # YAML: the last counts
        "model: resnet8\nval-resize: 300",
        "{model: resnet8, decay_epochs: []}",
        "model: resnet8  # für γ",
    ],
)
def test_files_that_are_fine(here, text):
    name = Path("caf\xe9 of mine.yaml")
    name.write_bytes(text.encode())
    size = ("--resolution", 16, "--val-resize", 16) if "resize" not in text else ("--flip",)
    assert_ends(train("--recipe", name, "--data", "digits", *size), 0, "trained to step 2")


def test_what_was_tuned_is_a_recipe_too(here):
    (here / "tuned.yaml").write_text("fusion_mb: much")
    with nothing_written(here):
        assert_ends(train("--autotune", "tuned.yaml"), 2, "--fusion-mb much")
    (here / "tuned.yaml").write_text("cycle: 1")
    assert_ends(train("--autotune", "tuned.yaml"), 2, "unknown setting cycle", "tuned.yaml")
