"""What is said of a setting that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.command_line import load_settings
from hvd_utils.config.other_names import ELSEWHERE, GONE, NOT_NEEDED
from hvd_utils.config.settings import Settings
from hvd_utils.config.unknown_setting import suggestion

TABLE = Path(__file__).parents[3] / "docs" / "training.md"


def told(*arguments: str) -> str:
    with pytest.raises(BadInput) as caught:
        load_settings(arguments, {})
    return str(caught.value)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_each_name_of_another_script_leads_to_a_setting_that_is_taken(name):
    flag, *value = ELSEWHERE[name].split()
    assert flag.replace("-", "_") in Settings.model_fields
    if value:
        load_settings([f"--{flag}", *value], {})


def test_no_name_of_another_script_is_a_setting_here():
    assert not {*ELSEWHERE, *NOT_NEEDED, *GONE} & {*Settings.model_fields}


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("--batch-size 64", "--batch-per-worker?"),
        ("--batchsize=64", "--batch-per-worker?"),
        ("-b 64", "--batch-per-worker?"),
        ("-b64", "--batch-per-worker?"),
        ("--lr=0.1", "--reference-rate?"),
        ("--amp", "--precision bf16?"),
        ("--wokers 2", "--workers?"),
    ],
)
def test_the_setting_that_was_meant_is_suggested(arguments, meant):
    assert f"did you mean {meant}" in told(*arguments.split())


def test_names_unlike_any_setting_get_no_suggestion():
    assert told("--cooldown", "3") == "unknown setting --cooldown: --help lists all settings"


def test_a_run_goes_on_by_itself():
    assert told("--start-epoch", "3").endswith("goes on by itself")


def test_a_recipe_is_told_in_its_own_form():
    assert "did you mean precision: bf16?" in suggestion("amp", "{}: {}")
    assert "did you mean batch_per_worker?" in suggestion("batch_size", "{}: {}")


def test_a_folder_is_taken_for_data(tmp_path):
    assert told(str(tmp_path)).endswith(f"did you mean --data {tmp_path}?")


def test_the_table_in_the_pages_is_true():
    """Each name of its left column is told with the setting of its right column."""
    rows = re.findall(r"^\| (`-.*) \| (`--.*) \|$", TABLE.read_text().split("## Models")[0], re.M)
    named = [
        (name, re.search(r"`--([^`]+)`", right)[1])
        for row in rows
        for left, right in zip(row[0].split("; "), row[1].split("; "), strict=True)
        for name in re.findall(r"`-+([^`]+)`", left)
    ]
    assert len(named) > 15
    for name, setting in named:
        if name != "workers":  # which is another thing here, as the text below the table says
            assert ELSEWHERE[name.replace("-", "_")] == setting


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("--decay-epochs 30 60 80", "lists take commas, as 30,60,80: did you mean --decay-epochs"),
        ("--epochs 60 --decay-epochs 30, 60", "did you mean --decay-epochs 30,60?"),
        ("--profile 100 110", "did you mean --profile 100-110?"),
        ("--epochs 3 4", "unknown setting 4"),
    ],
)
def test_a_list_without_commas_is_told_with_them(arguments, meant):
    assert meant in told(*arguments.split())
