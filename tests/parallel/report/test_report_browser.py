"""The report's page in a real browser: drawn, whole on a phone, quiet, and without a network."""

from __future__ import annotations

import time

import pytest
from PIL import Image
from support.browser import Browser, find_browser
from support.made_up_runs import write_run

from hvd_utils.report.__main__ import main

pytestmark = pytest.mark.long

FIGURES = """Array.from(document.querySelectorAll("figure"), (figure) => {
  const svg = figure.querySelector("svg").getBoundingClientRect();
  const texts = Array.from(figure.querySelectorAll("svg text"), (e) => e.getBoundingClientRect());
  return {
    name: figure.id, box: [svg.left, svg.top + scrollY, svg.right, svg.bottom + scrollY],
    label: figure.querySelector("svg").getAttribute("aria-label"),
    paths: figure.querySelectorAll("svg path").length,
    smallest: Math.min(...texts.map((text) => text.height)),
    left: Math.min(...texts.map((text) => text.left)),
    right: Math.max(...texts.map((text) => text.right)),
  };
})"""
COURSE = {"loss-epochs", "error-epochs", "error-end", "loss-time", "error-time", "rate"}
SPEED = {"throughput", "split", "slow"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = find_browser()
    if program is None:
        pytest.skip("no browser here: tools/install_test_packages.sh installs one")
    with Browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages of one long run, of several, and of one that has just begun."""
    folder = tmp_path_factory.mktemp("runs")
    # The paper's hour with every step logged: 14,040 lines.
    hour = write_run(folder / "hour", steps_per_epoch=156, restarts=(9000,), slow_rank=13)
    odd = folder / "a name without spaces, <i>'&amp;\"%20, longer than any telephone is wide.."
    others = [
        write_run(folder / "seed-1", restarts=(300,), slow_rank=13),
        write_run(folder / "seed-2", seed=2),
        write_run(odd, workers=8, done=50, end=False),
        write_run(folder / "cold", warmup="none"),
    ]
    began = write_run(folder / "began", done=1, end=False)
    pages = {}
    for name, runs in {"one": [hour], "several": others, "began": [began]}.items():
        pages[name] = folder / f"{name}.html"
        start = time.monotonic()
        main([*map(str, runs), "--out", str(pages[name])])
        assert time.monotonic() - start < 120  # usually 2
        assert pages[name].stat().st_size < 2e6
    return pages


@pytest.mark.parametrize(
    ("name", "width", "dark", "expected"),
    [
        ("one", 1280, False, COURSE | SPEED | {"ranks"}),
        ("one", 390, True, COURSE | SPEED | {"ranks"}),
        ("several", 1280, True, COURSE | SPEED | {"minibatch"}),
        ("several", 390, False, COURSE | SPEED | {"minibatch"}),
        ("began", 390, False, (COURSE | SPEED | {"ranks"}) - {"error-end", "slow"}),
    ],
)
def test_every_picture_is_drawn(browser, pages, name, width, dark, expected, tmp_path):
    if name == "several":
        expected = expected - {"minibatch"}  # the run of another kn is not finished
    browser.open(pages[name], width=width, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    figures = browser.evaluate(FIGURES)
    assert {figure["name"] for figure in figures} == expected
    with Image.open(browser.screenshot(tmp_path / "page.png")) as picture:
        shown = picture.convert("RGB")
    corner = shown.getpixel((2, 2))
    assert (max(corner) < 60) if dark else (min(corner) > 240)
    for figure in figures:
        left, top, right, bottom = figure["box"]
        assert right - left >= 300, figure
        assert bottom - top >= 190, figure
        assert figure["paths"] > 5, figure
        assert figure["label"], figure
        assert figure["smallest"] >= 8, figure  # CPU-drawn text, pixels
        assert figure["left"] >= 0, figure
        assert figure["right"] <= width, figure
        drawn = shown.crop((int(left), int(top), int(right), int(bottom)))
        blank = sum(count for count, colour in drawn.getcolors(10**6) if colour == corner)
        assert blank < 0.99 * drawn.width * drawn.height, figure
        assert len(drawn.getcolors(10**6)) > 10, figure
    assert browser.complaints() == []
    assert browser.requests() == [pages[name].as_uri()]


def test_values_are_read_out_under_the_pointer_and_by_keys(browser, pages):
    browser.open(pages["one"], width=1280)
    words = 'document.querySelector("#error-epochs output").innerText'
    assert not browser.evaluate(words).strip()
    place = browser.evaluate(
        'JSON.parse(JSON.stringify(document.querySelector("#error-epochs svg")'
        ".getBoundingClientRect()))"
    )
    x, y = place["x"] + 0.9 * place["width"] / 2, place["y"] + place["height"] / 2
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    read = browser.evaluate(words)
    assert read.startswith("epoch ")
    assert "validation " in read
    assert "training " in read
    assert float(read.split()[1].rstrip(":")) == pytest.approx(40, abs=8)
    browser.evaluate('document.querySelector("#rate .picture").focus()')
    for key in ("ArrowRight", "ArrowRight"):
        browser.call("Input.dispatchKeyEvent", type="keyDown", key=key)
    assert "rate 3.2" in browser.evaluate('document.querySelector("#rate output").innerText')
    assert browser.complaints() == []


def test_the_page_prints_light_and_whole(browser, pages):
    browser.open(pages["several"], width=1000, dark=True)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.call("Emulation.setEmulatedMedia", media="print", features=features)
    colour = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == "rgb(255, 255, 255)"
    printed = browser.call("Page.printToPDF", printBackground=False)["data"]
    assert len(printed) > 10_000
    assert browser.complaints() == []
