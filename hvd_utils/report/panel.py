"""One picture of a report: layout, labels, SVG and PNG."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hvd_utils.cli.errors import BadInput

WIDTH, HEIGHT = 400, 262  # points; a picture is as wide as a phone's screen and so legible on one
DOTS = 200  # an inch, of a PNG
LABELS = 12  # most lines of a picture that are labelled at their end
APART = 0.055  # these labels, of the axes' height

# For colour-blind readers and on white paper: page.css has their like for dark screens, by name.
RUNS = ("#0072b2", "#c24a00", "#00815e", "#a5437d", "#8a6100", "#50555c")
DATA, COMPUTE, ALLREDUCE = "#b07a00", "#3d7fb0", "#9a4f86"
INK, FAINT, GRID, PAPER = "#22262b", "#646c75", "#dde1e6", "#75797e"
DASHES = ("-", (0, (6, 2)), (0, (2, 1.4)), (0, (6, 2, 1.5, 2)))  # where there are more than colours

VARIABLES = {colour: f"--run-{n}" for n, colour in enumerate(RUNS)} | {
    DATA: "--data",
    COMPUTE: "--compute",
    ALLREDUCE: "--allreduce",
    INK: "--ink",
    FAINT: "--faint",
    GRID: "--grid",
    PAPER: "--paper",
}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, sharp, and read aloud
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.major.width": 0.7,
    "lines.solid_capstyle": "round",
    "lines.linewidth": 1.7,
    "figure.constrained_layout.use": True,
}

SVG = "http://www.w3.org/2000/svg"
LINK = "{http://www.w3.org/1999/xlink}href"


@dataclass(frozen=True)
class Line:
    """A line as the page reads it out; ``unit`` follows each value."""

    label: str
    colour: str
    x: np.ndarray
    y: np.ndarray
    unit: str = ""


@dataclass
class Panel:
    """A picture under way: draw on ``axes``, then ``add`` what the page shall read out."""

    name: str
    title: str
    note: str
    x_unit: str
    figure: Figure
    axes: Axes
    lines: list[Line] = field(default_factory=list)
    keys: list[tuple[str, str, Any]] = field(default_factory=list)  # label, colour, dashes
    summary: str = ""  # for readers who cannot see the picture
    _ends: list[tuple[float, float, str, str]] = field(default_factory=list)

    def add(self, label: str, colour: str, x: Any, y: Any, unit: str = "") -> None:
        """Have the page read this line out."""
        self.lines.append(Line(label, colour, np.asarray(x, float), np.asarray(y, float), unit))

    def end_label(self, x: Any, y: Any, text: str, colour: str) -> None:
        """Write ``text`` beside a line's end, once all are drawn."""
        known = np.flatnonzero(np.isfinite(np.asarray(y, float)))
        if text and len(known):
            self._ends.append((float(x[known[-1]]), float(y[known[-1]]), text, colour))

    def finish(self) -> None:
        """Write the labels of lines' ends so that none covers another."""
        if not self._ends or len(self._ends) > LABELS:
            return
        axes = self.axes
        to_place = (axes.transScale + axes.transLimits).transform
        low, high = axes.get_ylim()
        ends = []
        for x, y, text, colour in sorted(self._ends, key=lambda end: end[1]):
            across, up = to_place((x, min(max(y, low), high)))
            ends.append((text, colour, across, up))
        at_edge = [end for end in ends if end[2] > 0.97]
        within = [end for end in ends if end[2] <= 0.97]  # a line that ends before the others
        self._label(at_edge, (4, 0))
        self._label(within, (3, 6))

    def _label(self, ends: Sequence[tuple[str, str, float, float]], away: tuple[int, int]) -> None:
        places = spread_out([up for *_, up in ends], APART)
        for (text, colour, across, _), up in zip(ends, places, strict=True):
            self.axes.annotate(
                text, (min(across, 1.0), up), xycoords="axes fraction", xytext=away, fontsize=10,
                textcoords="offset points", va="center", color=colour, weight="bold",
                annotation_clip=False,
            )  # fmt: skip


def spread_out(places: Sequence[float], apart: float) -> list[float]:
    """Return rising ``places`` moved so that they lie ``apart``, as little as that needs.

    None lies below 0.
    """
    clusters: list[tuple[float, int]] = []  # centre, how many
    for place in places:
        centre, count = place, 1
        while clusters and centre - clusters[-1][0] < apart * (count + clusters[-1][1]) / 2:
            before, many = clusters.pop()
            centre = (centre * count + before * many) / (count + many)
            count += many
        clusters.append((centre, count))
    spread, least = [], 0.0
    for centre, count in clusters:
        for n in range(count):
            spread.append(max(least, centre + apart * (n - (count - 1) / 2)))
            least = spread[-1] + apart
    return spread


def new_panel(name: str, title: str, note: str, x: str, x_unit: str) -> Panel:
    """Return an empty picture; ``x`` is its axis's label."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72)
        axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.grid(visible=False, axis="x")
    return Panel(name, title, note, x_unit, figure, axes)


def run_colour(number: int) -> tuple[str, Any]:
    """Return colour and dashes of the run or group of this number, from 0."""
    return RUNS[number % len(RUNS)], DASHES[number // len(RUNS) % len(DASHES)]


def to_svg(panel: Panel) -> str:
    """Return the picture as an SVG element for a page, with colours that the page decides on."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        panel.figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    ET.register_namespace("", SVG)
    root = ET.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith("}metadata") or child.tag.endswith("}style"):
                parent.remove(child)
    for element in root.iter():
        _tidy(element, panel.name)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", f"{panel.title}. {panel.summary}".strip())
    return ET.tostring(root, encoding="unicode")


def _tidy(element: ET.Element, name: str) -> None:
    """Give colours by name, places to a tenth of a point, and ids that are the picture's own."""
    for place in ("d", "x", "y", "width", "height", "transform"):
        if place in element.attrib:
            element.set(place, re.sub(r"(\d\.\d)\d+", r"\1", element.get(place)))
    if element.tag == f"{{{SVG}}}g":
        element.attrib.pop("id", None)
    elif "id" in element.attrib:
        element.set("id", f"{name}-{element.get('id')}")
    if LINK in element.attrib:
        element.set("href", element.attrib.pop(LINK).replace("#", f"#{name}-"))
    if "clip-path" in element.attrib:
        element.set("clip-path", element.get("clip-path").replace("#", f"#{name}-"))
    style = element.get("style")
    if style:
        for colour, variable in VARIABLES.items():
            style = style.replace(colour, f"var({variable})")
        element.set("style", re.sub(r"'DejaVu Sans'[^;]*", "var(--font)", style))


def readout(panel: Panel) -> dict[str, Any]:
    """Return what the page needs to read values out: where the axes lie, and the lines."""
    place, (low, high) = panel.axes.get_position(), panel.axes.get_xlim()
    return {
        "box": [round(v, 4) for v in (place.x0, 1 - place.y1, place.width, place.height)],
        "x": [low, high],
        "unit": panel.x_unit,
        "lines": [
            {
                "label": line.label,
                "colour": VARIABLES.get(line.colour, "--ink"),
                "unit": line.unit,
                "x": _short(line.x),
                "y": _short(line.y),
            }
            for line in panel.lines
        ],
    }


def _short(values: np.ndarray) -> list[float | None]:
    return [float(f"{v:.4g}") if np.isfinite(v) else None for v in values.tolist()]


def write_png(panel: Panel, folder: Path) -> Path:
    """Write the picture with its title and key below ``folder``; raise BadInput if that fails."""
    path = folder / f"{panel.name}.png"
    figure = panel.figure
    with matplotlib.rc_context(STYLE):
        figure.suptitle(panel.title, fontsize=11, weight="bold", x=0.02, ha="left")
        if panel.keys:
            handles = [
                matplotlib.lines.Line2D([], [], color=colour, linestyle=dashes, label=label)
                for label, colour, dashes in panel.keys
            ]
            figure.legend(
                handles=handles, loc="outside lower left", frameon=False, fontsize=8, ncols=2
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=DOTS, facecolor="white", transparent=False)
        except OSError as error:
            raise BadInput(f"cannot write {path}: {error.strerror}; set --png elsewhere") from error
    return path
