"""What is wrong with a value, in plain words: pydantic's own speak of its types."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

SHOWN = 100  # characters of a value that is wrong

# By pydantic's kind of error, which it fills in from the error's context.
WORDS = {
    "bool_parsing": "takes true or false",
    "bool_type": "takes true or false",
    "finite_number": "takes a finite number",
    "float_parsing": "takes a number",
    "float_type": "takes a number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "takes a whole number",
    "int_parsing": "takes a whole number",
    "int_parsing_size": "takes a whole number with fewer digits",
    "int_type": "takes a whole number",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "missing": "takes more values, with commas",
    "path_type": "takes a path",
    "string_type": "takes a text",
    "too_long": "takes at most {max_length} values",
    "tuple_type": "takes a list",
}


def reasons(error: ValidationError) -> list[str]:
    """Return for each wrong value its setting, the value and what it has to be."""
    return [_reason(item) for item in error.errors()]


def _reason(item: ErrorDetails) -> str:
    context = {name: _short(value) for name, value in item.get("ctx", {}).items()}
    if item["type"] == "literal_error":
        reason = f"takes one of {context['expected'].replace(' or ', ', ')}".replace("'", "")
    elif item["type"] in WORDS:
        reason = WORDS[item["type"]].format(**context)
    else:
        reason = item["msg"].removeprefix("Value error, ")
    if not item["loc"]:
        return reason
    flag = "--" + str(item["loc"][0]).replace("_", "-")
    value = item["input"]
    shown = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    shown = f"{shown[:SHOWN]}…" if len(shown) > SHOWN else shown
    return f"{flag} {shown}: {reason}"


def _short(value: Any) -> str:
    """Return a bound as a user writes it: 1e8 is 100000000, not 100000000.0."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)
