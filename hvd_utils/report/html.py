"""HTML elements from nested calls; all text is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

VOID = ("meta", "br", "col")


class Html(str):
    """Text that is HTML already."""


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """Return an element. ``class_`` stands for class, ``_`` for -; None leaves things out."""
    opening = name
    for key, value in attributes.items():
        if value is not None:
            opening += f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
    if name in VOID:
        return Html(f"<{opening}>")
    return Html(f"<{opening}>{join(*children)}</{name}>")


def join(*children: Any) -> Html:
    """Return text, elements and lists of them, one after the other."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, Iterable) and not isinstance(child, str):
            parts.append(join(*child))
        else:
            parts.append(html.escape(str(child)))
    return Html("".join(parts))


def table(heads: Iterable[Any], rows: Iterable[Iterable[Any]], caption: str) -> Html:
    """Return a table whose first column names its rows; it scrolls where it is too wide."""
    head = tag("thead", tag("tr", [tag("th", each, scope="col") for each in heads]))
    body = []
    for first, *others in rows:
        body.append(tag("tr", tag("th", first, scope="row"), [tag("td", each) for each in others]))
    whole = tag("table", head, tag("tbody", body), aria_label=caption)
    frame = tag("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption)
    return join(frame, tag("p", caption, class_="note"))


def facts(pairs: Iterable[tuple[str, Any]]) -> Html:
    """Return a list of names and values."""
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs])
