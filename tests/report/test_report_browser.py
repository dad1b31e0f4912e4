"""The report in a real browser: no errors, no requests, and all of it within reach of a keyboard."""

from __future__ import annotations

import io

import numpy as np
import pytest
import toys
from browser import Browser
from PIL import Image

from medfewshot.report.page.content import Page, PageCase, StructureRow
from medfewshot.report.page.flags import raise_flags
from medfewshot.report.page.split import write_page
from medfewshot.report.page.viewer import display_volumes
from medfewshot.report.page.write import card_uri

NAMES = {1: "left <block>", 2: "right block"}


def make_page() -> Page:
    cases = []
    for number, size in enumerate((30.0, 4.0, 200.0)):
        image, labels = toys.make_scan(number, values=(1, 2))
        if number == 2:  # bright in one corner: right, anterior, superior
            labels = np.zeros_like(labels)
            image = np.full(image.shape, 50.0)
            image[tuple(slice(n // 2, n) for n in image.shape)] = 200
        doubt = (labels > 0) * 0.5
        volumes = display_volumes(image, labels, np.diag([1, 1, 2.0, 1]), values=[1, 2], uncertainty=doubt)
        viewer = volumes.with_reference(np.roll(labels, 2, axis=0), [1, 2]).encoded()
        rows = tuple(StructureRow(v, name, size * v, 0.9, "found", {"dice": 0.9}) for v, name in NAMES.items())
        rows = rows if number else (rows[0], StructureRow(2, NAMES[2], 0.0, None, "missed", {"dice": 0.0}))
        picture = card_uri(volumes, 1)
        cases.append(PageCase(f"case {number}", structures=rows, seconds=1.5, viewer=viewer, picture=picture))
    return Page("A <b>run</b>", NAMES, raise_flags([*cases, PageCase("case 9", failed=True)]))


@pytest.fixture(scope="module")
def browser(chromium, tmp_path_factory):
    path = write_page(tmp_path_factory.mktemp("page") / "report.html", make_page())
    with Browser(chromium) as browser:
        browser.open(path)
        yield browser
        driver = [text for text in browser.problems if "GL Driver Message" in text]  # of software rendering
        assert [text for text in browser.problems if text not in driver] == []


def shown(browser) -> list[str]:
    """Case and structure of the rows that the table shows; the structures by the first letter of their names."""
    rows = "[...document.querySelectorAll('#table tbody tr')]"
    return browser.ask(f"{rows}.map(row => row.cells[0].textContent.slice(5) + row.cells[1].textContent[0])")


def focus(browser, selector: str) -> None:
    browser.ask(f"document.querySelector({selector!r}).focus()")


def sort_by(browser, heading: str) -> None:
    headings = "[...document.querySelectorAll('#table th button')]"
    browser.ask(f"{headings}.find(button => button.textContent === {heading!r}).focus()")
    browser.press("Enter")


def choose(browser, select: str, value: str) -> None:
    change = "s.dispatchEvent(new Event('change'))"
    browser.ask(f"{{const s = document.getElementById('{select}'); s.value = '{value}'; {change}}}")


def test_text_is_text(browser):
    assert browser.ask("document.querySelector('h1').textContent") == "A <b>run</b>"
    assert browser.ask("document.querySelector('.legend span').textContent") == "left <block>"


def test_the_first_screen_shows_pictures(browser):
    """The flagged case is the first of the cards; all pictures are loaded and lie above the first table."""
    cards = "[...document.querySelectorAll('.card')]"
    assert browser.ask(f"{cards}.map(card => card.querySelector('h3').textContent)")[0] == "case 0"
    assert browser.ask(f"{cards}[0].querySelector('.flag').textContent") == "right block: missed"
    assert browser.ask("[...document.querySelectorAll('.card img')].every(image => image.naturalWidth > 300)")
    assert browser.ask("document.querySelector('.card img').getBoundingClientRect().bottom") < 500
    assert browser.ask("document.querySelector('table').getBoundingClientRect().top") > 400


def test_sorting_with_the_keyboard(browser):
    sort_by(browser, "Volume ml")
    assert shown(browser) == ["0r", "1l", "1r", "0l", "2l", "2r", "9–"]
    assert browser.ask("document.activeElement.closest('th').getAttribute('aria-sort')") == "ascending"
    sort_by(browser, "Volume ml")
    assert shown(browser) == ["2r", "2l", "0l", "1r", "1l", "0r", "9–"]  # what has no size stays last
    sort_by(browser, "Structure")
    sort_by(browser, "Scan")
    assert shown(browser) == ["0l", "0r", "1l", "1r", "2l", "2r", "9–"]


def test_filtering_with_the_keyboard(browser):
    focus(browser, "#find")
    for letter in "missed":
        browser.press(letter)
    assert shown(browser) == ["0r"]
    assert browser.ask("document.getElementById('count').textContent") == "1 of 7 rows"
    assert browser.ask("document.getElementById('case-2').hidden")
    assert not browser.ask("document.getElementById('case-1').hidden")
    browser.ask("document.getElementById('find').value = ''")
    choose(browser, "show", "clear")
    assert shown(browser) == ["0l", "1l", "1r", "2l", "2r"]
    choose(browser, "structure", "2")
    assert shown(browser) == ["1r", "2r"]
    choose(browser, "structure", "")
    choose(browser, "show", "all")


def where(browser) -> str:
    return browser.ask("document.getElementById('where').textContent")


def axial(browser) -> int:
    return int(where(browser).split("axial ")[1].split()[0])


def settled(browser) -> np.ndarray:
    browser.ask("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return np.asarray(Image.open(io.BytesIO(browser.picture())).convert("RGB")).astype(int)


def panes(browser) -> np.ndarray:
    """The canvas as ``(rows, columns, 3)``: coronal and sagittal above, axial and 3D below."""
    box = browser.ask("(r => [r.x, r.y, r.right, r.bottom])(document.getElementById('canvas').getBoundingClientRect())")
    left, top, right, bottom = (round(v) for v in box)
    return settled(browser)[top + 4 : bottom - 4, left + 4 : right - 4]


def pane(browser, row: int, column: int) -> np.ndarray:
    pixels = panes(browser)
    height, width = (n // 2 for n in pixels.shape[:2])
    return pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]


def coloured(browser) -> int:
    """Pixels in the three planes that have a colour."""
    pixels = panes(browser)
    pixels[pixels.shape[0] // 2 :, pixels.shape[1] // 2 :] = 0  # 3D
    return int((np.ptp(pixels, axis=2) > 30).sum())


def is_checked(browser, selector: str) -> bool:
    return browser.ask(f"document.querySelector({selector!r}).checked")


@pytest.fixture
def viewer(browser):
    """The first case in the viewer, which is closed afterwards."""
    focus(browser, "#case-1 button.open")
    browser.press("Enter")
    browser.wait("document.getElementById('viewer').dataset.ready === 'case-1'")
    yield browser
    browser.press("Escape")
    browser.ask("delete document.getElementById('viewer').dataset.ready")


def test_the_viewer_with_the_keyboard(viewer):
    assert viewer.ask("document.activeElement.id") == "canvas"
    assert "segmentation: left <block>; reference: left <block>; uncertainty 0.50." in where(viewer)
    first = axial(viewer)
    viewer.press("ArrowUp")
    assert axial(viewer) == first + 1
    viewer.press("PageDown")
    assert axial(viewer) == max(1, first + 1 - 10)
    viewer.press("PageUp")
    viewer.press("c")
    viewer.press("ArrowDown")
    assert is_checked(viewer, "input[name=plane][value='1']")
    before = viewer.ask("document.getElementById('opacity').value")
    viewer.press("+")
    assert int(viewer.ask("document.getElementById('opacity').value")) == int(before) + 10
    viewer.press("n")
    viewer.wait("document.getElementById('viewer').dataset.ready === 'case-2'")
    assert viewer.ask("document.getElementById('viewer-title').textContent") == "case 1"
    viewer.press("Escape")
    assert not viewer.ask("document.getElementById('viewer').open")
    assert viewer.ask("document.activeElement.classList.contains('open')")


def test_labels_as_fill_and_as_outline(viewer):
    fill = coloured(viewer)
    assert fill > 500
    viewer.press("m")
    assert coloured(viewer) < fill / 20
    viewer.press("m")
    assert coloured(viewer) == pytest.approx(fill, rel=0.1)
    viewer.ask("document.querySelectorAll('#structures input')[0].click()")
    assert coloured(viewer) < 0.9 * fill
    viewer.ask("document.querySelectorAll('#structures input')[0].click()")
    viewer.press("o")
    assert is_checked(viewer, "#outlines")
    assert fill / 200 < coloured(viewer) < fill / 3
    viewer.press("o")


def test_segmentation_and_reference_together(viewer):
    def white() -> int:
        return int((pane(viewer, 1, 0).min(axis=2) > 250).sum())

    fill, plain = coloured(viewer), white()
    viewer.press("r")
    assert is_checked(viewer, "input[name=map][value=reference]")
    assert coloured(viewer) > 500
    viewer.press("r")
    assert is_checked(viewer, "input[name=map][value=both]")
    assert coloured(viewer) > fill / 2  # the segmentation as before ...
    assert white() > plain + 50  # ... with the reference's white outline
    viewer.press("r")
    assert is_checked(viewer, "input[name=map][value=labels]")


def test_uncertainty_and_grey_levels(viewer):
    fill = pane(viewer, 1, 0)
    viewer.press("u")
    assert (np.abs(pane(viewer, 1, 0) - fill).max(axis=2) > 30).sum() > 500
    assert "; uncertainty 0.50." in where(viewer)
    viewer.press("u")
    viewer.press("m")
    before = pane(viewer, 1, 0).mean()
    viewer.ask("{const s = document.getElementById('level'); s.value = s.max; s.dispatchEvent(new Event('input'))}")
    assert pane(viewer, 1, 0).mean() < 0.8 * before  # a higher level is darker
    viewer.press("w")
    assert pane(viewer, 1, 0).mean() == pytest.approx(before, rel=0.02)
    viewer.press("m")


def test_three_planes_and_3d_have_anterior_and_right_on_the_left(viewer):
    """Case 2 is bright in the patient's right, anterior, superior eighth only."""
    viewer.press("p")
    viewer.wait("document.getElementById('viewer').dataset.ready === 'case-3'")
    for row, column in ((0, 0), (0, 1), (1, 0)):  # coronal, sagittal, axial: bright in the upper left
        bright = pane(viewer, row, column).min(axis=2) > 120
        rows, columns = np.nonzero(bright)
        assert len(rows) > 200
        shape = pane(viewer, row, column).max(axis=2) > 40
        middle = [(found.min() + found.max()) / 2 for found in np.nonzero(shape)]
        assert rows.mean() < middle[0]
        assert columns.mean() < middle[1]
    assert (pane(viewer, 1, 1).max(axis=2) > 40).sum() > 1000  # 3D
    viewer.press("v")
    assert not is_checked(viewer, "#solid")
    assert (pane(viewer, 1, 1).max(axis=2) > 40).sum() < 100
    viewer.press("v")


def test_light_and_dark(browser):
    bright = []
    for dark in (False, True):
        browser.dark(dark)
        bright.append(settled(browser).mean())
    browser.dark(False)
    assert bright[0] > 200
    assert bright[1] < 60


@pytest.mark.parametrize("width", [390, 1400])
def test_all_columns_are_within_the_window(browser, width):
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=False)
    assert browser.ask("document.documentElement.scrollWidth") <= width
    cells = "[...document.querySelectorAll('#table tbody tr:first-child > *')]"
    right = browser.ask(f"{cells}.map(cell => cell.getBoundingClientRect().right)")
    assert len(right) == 10
    assert max(right) <= width
    assert browser.ask(f"{cells}[2].dataset.label") == "Dice"
    browser.call("Emulation.clearDeviceMetricsOverride")


@pytest.fixture(scope="module")
def long_table(chromium, tmp_path_factory):
    cases = [
        PageCase(f"case_{number}", structures=(StructureRow(1, "left", number + 1.0, (number % 97) / 97),))
        for number in range(2000)
    ]
    path = write_page(tmp_path_factory.mktemp("long") / "report.html", Page("many", {1: "left"}, tuple(cases)))
    with Browser(chromium) as browser:
        browser.open(path)
        yield browser
        assert browser.problems == []


def test_a_long_table_makes_the_rows_that_can_be_seen(long_table):
    view = "document.querySelector('.long')"
    rows = "[...document.querySelectorAll('#table tbody tr[data-row]')]"
    in_sight = (
        f"(() => {{const box = {view}.getBoundingClientRect(); return {rows}.filter(row => {{const r = "
        "row.getBoundingClientRect(); return r.top > box.top + 40 && r.bottom < box.bottom}}"
        ").map(row => Number(row.cells[0].textContent.slice(5)))})()"
    ).replace("}}", "}")

    def scrolled(share: float) -> list[int]:
        long_table.ask(f"{view}.scrollTop = {view}.scrollHeight * {share}")
        settled(long_table)
        assert long_table.ask(f"{rows}.length") < 150
        return long_table.ask(in_sight)

    assert scrolled(0)[:3] == [1, 2, 3]  # the first row is below the headings
    middle = scrolled(0.5)
    assert middle == list(range(middle[0], middle[0] + len(middle)))
    assert 900 < middle[0] < 1100
    assert scrolled(1)[-1] == 1999
    sort_by(long_table, "Volume ml")
    sort_by(long_table, "Volume ml")
    assert long_table.ask(in_sight)[:2] == [1998, 1997]
    focus(long_table, "#find")
    for letter in "e_777":
        long_table.press(letter)
    assert long_table.ask("document.getElementById('count').textContent") == "1 of 2000 rows"
    assert long_table.ask(f"{rows}[0].cells[0].querySelector('a').href.split('/').slice(-2).join('/')") == (
        "report_scans/scans_002.html#case-778"
    )
