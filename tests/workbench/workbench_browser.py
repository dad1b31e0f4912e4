"""A workbench page in a real Chromium, driven by mouse and keyboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

FLAGS = ("--enable-unsafe-swiftshader", "--disable-gpu", "--no-sandbox", "--disable-background-networking")
HARMLESS = ("GPU stall due to ReadPixels",)
WHERE = """([plane, voxel]) => {
  const { viewer } = window.workbench, nv = viewer.nv;
  const box = viewer.canvas.getBoundingClientRect(), dense = nv.uiData.dpr;
  const tile = nv.screenSlices.find((one) => one.axCorSag === 2 - plane);
  const { leftTopWidthHeight: [left, top, width, height], leftTopMM, fovMM } = tile;
  const [across, up] = [[1, 2], [0, 2], [0, 1]][plane].map((axis, i) =>
    (voxel[axis] * viewer.spacing[axis] - leftTopMM[i]) / fovMM[i]);
  return [box.left + (left + across * width) / dense, box.top + (top + (1 - up) * height) / dense];
}"""


class Page:
    """The page. ``problems``: console errors, exceptions, failed requests and requests that leave the machine."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.problems = page, []
        origin = url.split("/?")[0]
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on(
            "request", lambda r: None if r.url.startswith((origin, "data:", "blob:")) else self.problems.append(r.url)
        )
        page.goto(url)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning") and not any(text in message.text for text in HARMLESS):
            self.problems.append(message.text)

    def another(self, url: str) -> Page:
        """Open another tab of the same browser."""
        return Page(self.page.context.new_page(), url)

    def ask(self, script: str, value: Any = None) -> Any:
        """The value of a script in the page."""
        return self.page.evaluate(script, value)

    def ready(self, name: str) -> Page:
        """Wait until this scan is open."""
        self.page.wait_for_selector(f'body[data-ready="{name}"]', timeout=60_000)
        return self

    def open(self, name: str) -> Page:
        """Open a scan from the list."""
        self.page.click(f'#cases li[data-name="{name}"]')
        return self.ready(name)

    def key(self, *keys: str) -> Page:
        """Press keys on the canvas."""
        self.page.focus("#canvas")
        for key in keys:
            self.page.keyboard.press(key)
        return self

    def go(self, voxel: Sequence[int]) -> Page:
        """Move the cross."""
        self.ask("(voxel) => window.workbench.viewer.moveTo(voxel)", list(voxel))
        return self

    def drag(self, plane: int, voxels: Sequence[Sequence[int]]) -> Page:
        """Drag the mouse over voxels of one slice, which is brought to the front first."""
        self.go(voxels[0])
        points = [self.ask(WHERE, [plane, list(voxel)]) for voxel in voxels]
        mouse = self.page.mouse
        mouse.move(*points[0])
        mouse.down()
        for point in points[1:]:
            mouse.move(*point, steps=3)
        mouse.up()
        return self

    def saved(self) -> Page:
        """Wait until everything is saved."""
        self.page.wait_for_selector('#saved[data-state="saved"]', timeout=30_000)
        return self

    def wait(self, selector: str) -> Page:
        """Wait for an element."""
        self.page.wait_for_selector(selector, timeout=30_000)
        return self


Browse = Callable[..., Page]


@contextmanager
def browsing(executable: str) -> Iterator[Browse]:
    """A browser: call it with an address to open a tab.

    Options of a tab: ``dark``, ``width`` and ``height`` in pixels, ``blocked`` (a pattern of requests that fail).
    """
    pytest.importorskip("playwright", reason="the browser tests need playwright (pip install medfewshot[dev])")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))

        def browse(url: str, *, dark: bool = False, width: int = 1024, height: int = 700, blocked: str = "") -> Page:
            theme = "dark" if dark else "light"
            tab = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme).new_page()
            if blocked:
                tab.route(blocked, lambda route: route.abort())
            return Page(tab, url)

        try:
            yield browse
        finally:
            browser.close()
