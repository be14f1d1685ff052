"""What to say of a setting that does not exist: the one that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from hvd_utils.config.other_names import ELSEWHERE, GONE, NOT_NEEDED
from hvd_utils.config.settings import Settings

ALIKE = 0.75  # of difflib's ratio: --epoch is like --epochs, --batch-size unlike --cache-size


def unknown_flag(unknown: Sequence[str], arguments: Sequence[str]) -> str:
    """Return what is wrong with a command line of which ``unknown`` is left over, in a line."""
    word = unknown[0]
    if not word.startswith("-"):
        if listed := _list_in_words(word, arguments):
            return listed
        if Path(word).is_dir():
            return f"unknown setting {word}: did you mean --data {word}?"
    flag = word.partition("=")[0]
    if flag[:1] == "-" and flag[1:2] not in ("", "-"):  # -b64
        flag = flag[:2] if flag[2:].isdecimal() else flag
    return f"unknown setting {flag}{suggestion(flag.lstrip('-'), '--{} {}')}"


def suggestion(name: str, form: str) -> str:
    """Return what to add to "unknown setting NAME": the setting that was probably meant.

    ``form`` shows a setting and its value: ``--{} {}`` on a command line, ``{}: {}`` in a recipe.
    """
    name = name.replace("-", "_")
    if name in GONE:
        return f", which is gone: {GONE[name]}"
    if name in NOT_NEEDED:
        return f": {NOT_NEEDED[name]}"
    names = [*Settings.model_fields, *ELSEWHERE]
    close = difflib.get_close_matches(name, names, n=1, cutoff=ALIKE)
    if not close:
        return ": --help lists all settings"
    table = " (docs/training.md has a table of names)" if close[0] in ELSEWHERE else ""
    return f": did you mean {_shown(ELSEWHERE.get(close[0], close[0]), form)}?{table}"


def _shown(setting: str, form: str) -> str:
    name, _, value = setting.partition(" ")
    name = name.replace("_", "-") if form.startswith("-") else name.replace("-", "_")
    return form.format(name, value).rstrip(": ")


def _list_in_words(word: str, arguments: Sequence[str]) -> str:
    """Return what to say where ``word`` belongs to a list that was given without commas."""
    for place, flag in enumerate(arguments):
        field = Settings.model_fields.get(flag.removeprefix("--").replace("-", "_"))
        if field is None or not flag.startswith("--") or "tuple" not in str(field.annotation):
            continue
        given = [*takewhile(lambda each: not each.startswith("-"), arguments[place + 1 :])]
        if word in given[1:]:
            joined = ("-" if flag == "--profile" else ",").join(part.strip(",") for part in given)
            what = "steps take a dash" if flag == "--profile" else "lists take commas"
            return f"{what}, as {joined}: did you mean {flag} {joined}?"
    return ""
