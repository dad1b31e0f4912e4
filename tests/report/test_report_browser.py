"""The report in a real browser: no errors, no requests, and all of it within reach of a keyboard."""

from __future__ import annotations

import io

import numpy as np
import pytest
import toys
from browser import Browser, find_chromium
from PIL import Image

from medfewshot.report.page import Page, PageCase, Score, StructureRow, make_viewer, raise_flags, write_page

NAMES = {1: "left <block>", 2: "right block"}


def make_page() -> Page:
    cases = []
    for number, size in enumerate((30.0, 4.0, 200.0)):
        image, labels = toys.make_scan(number, values=(1, 2))
        viewer = make_viewer(image, labels, np.diag([1, 1, 2.0, 1]), [1, 2], 10**6, reference=labels[::-1])
        rows = tuple(StructureRow(v, name, size * v, 0.9, Score("found", 0.9)) for v, name in NAMES.items())
        rows = rows if number else (rows[0], StructureRow(2, NAMES[2], 0.0, None, Score("missed", 0.0)))
        cases.append(PageCase(f"case {number}", structures=rows, seconds=1.5, viewer=viewer))
    return Page("A <b>run</b>", NAMES, raise_flags([*cases, PageCase("case 9", status="failed")]))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    executable = find_chromium()
    if executable is None:
        pytest.skip("no Chromium on this machine")
    path = write_page(tmp_path_factory.mktemp("page") / "report.html", make_page())
    with Browser(executable) as browser:
        browser.open(path)
        yield browser
        driver = [text for text in browser.problems if "GL Driver Message" in text]  # of software rendering
        assert [text for text in browser.problems if text not in driver] == []


def names(browser) -> list[str]:
    rows = "[...document.querySelectorAll('#table tbody tr')].filter(row => !row.hidden)"
    return browser.ask(f"{rows}.map(row => row.cells[0].textContent)")


def focus(browser, selector: str) -> None:
    browser.ask(f"document.querySelector({selector!r}).focus()")


def test_text_is_text(browser):
    assert browser.ask("document.querySelector('h1').textContent") == "A <b>run</b>"
    assert browser.ask("document.querySelector('.group').textContent") == "left <block>"


def test_sorting_with_the_keyboard(browser):
    focus(browser, "[aria-label='left <block>, size in ml']")
    browser.press("Enter")
    assert names(browser) == ["case 1", "case 0", "case 2", "case 9"]
    assert browser.ask("document.activeElement.closest('th').getAttribute('aria-sort')") == "ascending"
    browser.press("Enter")
    assert names(browser) == ["case 2", "case 0", "case 1", "case 9"]  # what has no size stays last
    focus(browser, "#table th button")
    browser.press("Enter")
    assert names(browser) == ["case 0", "case 1", "case 2", "case 9"]


def test_filtering_with_the_keyboard(browser):
    focus(browser, "#find")
    for letter in "missed":
        browser.press(letter)
    assert names(browser) == ["case 0"]
    assert browser.ask("document.getElementById('count').textContent") == "1 of 4"
    assert browser.ask("document.getElementById('case-2').hidden")
    browser.ask("document.getElementById('find').value = ''")
    browser.ask("{const s = document.getElementById('show'); s.value = 'clear'; s.dispatchEvent(new Event('change'))}")
    assert names(browser) == ["case 1", "case 2"]
    browser.ask("{const s = document.getElementById('show'); s.value = 'all'; s.dispatchEvent(new Event('change'))}")


def where(browser) -> str:
    return browser.ask("document.getElementById('where').textContent")


def axial(browser) -> int:
    return int(where(browser).split("axial ")[1].split()[0])


def settled(browser) -> np.ndarray:
    browser.ask("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return np.asarray(Image.open(io.BytesIO(browser.picture())).convert("RGB")).astype(int)


def coloured(browser) -> int:
    """Pixels in the planes that are neither grey nor nearly so."""
    box = browser.ask("(r => [r.x, r.y, r.right, r.bottom])(document.getElementById('canvas').getBoundingClientRect())")
    left, top, right, bottom = (round(v) for v in box)
    pixels = settled(browser)[top + 4 : bottom - 4, left + 4 : right - 4]
    return int((np.ptp(pixels, axis=2) > 30).sum())


def test_the_viewer_with_the_keyboard(browser):
    focus(browser, "#case-1 button.open")
    browser.press("Enter")
    browser.wait("document.getElementById('viewer').dataset.ready === 'case-1'")
    assert browser.ask("document.activeElement.id") == "canvas"
    assert "left <block>" in where(browser) or "right block" in where(browser) or "no structure" in where(browser)
    first = axial(browser)
    browser.press("ArrowUp")
    assert axial(browser) == first + 1
    browser.press("PageDown")
    assert axial(browser) == max(1, first + 1 - 10)
    browser.press("PageUp")
    browser.press("c")
    browser.press("ArrowDown")
    assert browser.ask("document.querySelector('input[name=plane]:checked').value") == "1"

    shown = coloured(browser)
    assert shown > 500
    browser.press("m")
    assert coloured(browser) < shown / 20
    browser.press("m")
    assert coloured(browser) == pytest.approx(shown, rel=0.1)
    browser.ask("document.querySelectorAll('#labels input')[0].click()")
    assert coloured(browser) < 0.9 * shown
    browser.ask("document.querySelectorAll('#labels input')[0].click()")
    browser.press("r")
    assert browser.ask("document.querySelector('input[name=map]:checked').value") == "reference"
    browser.press("r")
    before = browser.ask("document.getElementById('opacity').value")
    browser.press("+")
    assert int(browser.ask("document.getElementById('opacity').value")) == int(before) + 10

    browser.press("n")
    browser.wait("document.getElementById('viewer').dataset.ready === 'case-2'")
    assert browser.ask("document.getElementById('viewer-title').textContent") == "case 1"
    browser.press("Escape")
    assert not browser.ask("document.getElementById('viewer').open")
    assert browser.ask("document.activeElement.classList.contains('open')")


def test_light_and_dark(browser):
    bright = []
    for dark in (False, True):
        browser.dark(dark)
        bright.append(settled(browser).mean())
    browser.dark(False)
    assert bright[0] > 200
    assert bright[1] < 60


def test_it_fits_a_narrow_window(browser):
    browser.call("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=False)
    assert browser.ask("document.documentElement.scrollWidth") <= 400
    browser.call("Emulation.clearDeviceMetricsOverride")
