"""The film that the report's viewer plays."""

from __future__ import annotations

import numpy as np
import pytest
from browser import Browser

from medfewshot.report import FilmStrip
from medfewshot.report.page.content import Page, PageCase, StructureRow
from medfewshot.report.page.split import write_page
from medfewshot.report.page.viewer import MOST_FRAMES, DisplayVolumes


def frame(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A bar of label 7 that grows by one voxel a frame, brighter than the noise around it."""
    labels = np.zeros((16, 10, 8), np.int16)
    labels[2 : 3 + number, 3:7, 2:6] = 7
    noise = np.random.default_rng(number).normal(0, 2, labels.shape)
    return (100.0 * (labels > 0) + noise).astype(np.float32), labels


def played(count: int = 6, at: int = 2) -> DisplayVolumes:
    strip = FilmStrip(count, (7,))
    for number in reversed(range(count)):  # in any order
        image, labels = frame(number % 12)
        strip.add(number, image, labels, np.diag([1, 1, 2.0, 1]))
    return strip.played(at)


def test_every_frame_is_played_and_the_film_is_paused_where_asked():
    volumes = played()
    assert volumes.film_labels.shape == (16, 10, 8, 6)
    assert [int((volumes.film_labels[..., n] == 1).sum()) for n in range(6)] == [16 * (n + 1) for n in range(6)]
    viewer = volumes.encoded()
    assert (viewer.frames, viewer.paused) == (tuple(range(6)), 2)


def test_long_and_large_films_are_bounded():
    volumes = played(3 * MOST_FRAMES, at=119)
    assert len(volumes.film_frames) == MOST_FRAMES
    assert (volumes.film_frames[0], volumes.film_frames[-1]) == (0, 119)
    small = volumes.coarser(volumes.film_grey.size // 4)
    assert small.film_grey.size <= volumes.film_grey.size // 4
    assert small.encoded().paused == MOST_FRAMES - 1
    assert (small.film_labels == 1).any((0, 1, 2)).all()  # no frame loses its structure


@pytest.fixture(scope="module")
def browser(chromium, tmp_path_factory):
    viewer = played().with_reference(frame(2)[1], (7,)).encoded()
    case = PageCase("beat", structures=(StructureRow(7, "cavity", 1.0, 0.9),), viewer=viewer)
    path = write_page(tmp_path_factory.mktemp("page") / "report.html", Page("A film", {7: "cavity"}, (case,)))
    with Browser(chromium) as browser:
        browser.open(path)
        browser.ask("document.querySelector('button[data-case]').click()")
        browser.wait("document.getElementById('viewer').dataset.ready === 'case-1'")
        yield browser
        assert [text for text in browser.problems if "GL Driver Message" not in text] == []


def text(browser, name: str) -> str:
    return browser.ask(f"document.getElementById('{name}').textContent")


def test_frames_with_the_keyboard(browser):
    assert text(browser, "frame-value") == "2 (with reference)"
    assert "reference: cavity" in text(browser, "where")
    for _ in range(2):
        browser.press(".")
    assert text(browser, "frame-value") == "4"
    assert "reference" not in text(browser, "where")
    browser.press(",")
    assert text(browser, "frame-value") == "3"


def test_playing_and_pausing(browser):
    before = text(browser, "frame-value")
    browser.press(" ")
    browser.wait(f"document.getElementById('frame-value').textContent !== '{before}'")
    assert text(browser, "play") == "Pause (Space)"
    browser.press(" ")
    assert text(browser, "play") == "Play (Space)"
