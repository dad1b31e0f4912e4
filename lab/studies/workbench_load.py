"""How fast is the workbench with many scans, and with a big one?

    python -m lab.studies.workbench_load scans --number 1000
    python -m lab.studies.workbench_load ct --slices 600
    python -m lab.studies.workbench_load page --slices 600

``scans`` makes a project of tiny scans, all with drafts, half of them with masks. ``ct`` makes a CT of 512x512 voxels a
slice, opens it as the page does, and saves strokes. Wall-clock and processor seconds of each step are printed.
``page`` opens such a CT in Chromium, without a graphics card, and prints when each step was done.
"""

from __future__ import annotations

import argparse
import http.client
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import nibabel as nib
import numpy as np

from lab.studies.big_ct import body
from medfewshot.workbench import Jobs, Project, Structure
from medfewshot.workbench.masks import pack
from medfewshot.workbench.server import LOCAL, build_app, free_port, make_server

TOKEN = "study"
NO_GRAPHICS_CARD = ("--enable-unsafe-swiftshader", "--disable-gpu", "--no-sandbox")
MARKS = """
window.marks = [];
const mark = (name) => window.marks.push([name, performance.now()]), ask = window.fetch;
window.fetch = async (path, ...rest) => {
  const answer = await ask(path, ...rest), [, kind] = /api\\/(case|scan|mask)/.exec(path) || [];
  if (kind) mark(`${kind}: the answer begins`);
  return answer;
};
new MutationObserver(() => document.body?.dataset.ready && !window.ready && mark((window.ready = "scroll and draw")))
  .observe(document, { subtree: true, attributes: true, childList: true });
"""
FINISH = """() => {
  const { gl } = window.workbench.viewer.nv;
  gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4)); // waits for the graphics
  const [before] = window.marks.at(-1);
  window.marks.push([before.startsWith("scroll") ? "on screen" : "all slices painted", performance.now()]);
}"""
ONE = (Structure("structure", 1, "#ff0000"),)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print the time of a block."""
    wall, processor = time.perf_counter(), time.process_time()
    yield
    seconds = time.perf_counter() - wall, time.process_time() - processor
    print(f"{what:40} {seconds[0]:7.3f} s, processor {seconds[1]:7.3f} s", flush=True)


@contextmanager
def serving(project: Project) -> Iterator[tuple[Callable[..., int], str]]:
    """Run a server; gives a function that sends a request and returns the bytes of the answer, and the address."""
    app = build_app(project, Jobs(project), token=TOKEN)
    listener = free_port(LOCAL, 0)
    server = make_server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)

    def ask(method: str, path: str, body: bytes = b"", **query: object) -> int:
        connection = http.client.HTTPConnection(LOCAL, listener.getsockname()[1], timeout=600)
        connection.request(method, f"/api/{path}?{urlencode(query)}", body, {"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        if answer.status >= 300:
            raise SystemExit(answer.read().decode())
        size = 0
        while part := answer.read(1 << 20):
            size += len(part)
        return size

    yield ask, f"http://{LOCAL}:{listener.getsockname()[1]}/?token={TOKEN}"
    server.should_exit = True
    thread.join(10)


def many_scans(folder: Path, number: int) -> None:
    """Time a project of many scans."""
    rng = np.random.default_rng(0)
    labels = np.zeros((16, 16, 8), np.uint8)
    labels[4:9, 4:9, 2:5] = 1
    (folder / "scans").mkdir()
    for scan in range(number):
        voxels = rng.normal(100, 9, labels.shape).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / "scans" / f"s{scan:05}.nii.gz")
    with timed(f"new project of {number} scans"):
        project = Project.create(folder / "project", [folder / "scans"], structures=ONE)
    names = [case.name for case in project.cases()]
    for name in names:
        project.write_draft(name, labels, confidence=rng.uniform(0.3, 1), distance=rng.uniform(0, 1))
    for name in names[::2]:
        project.save_mask(name, labels, version=0)
    with timed("open the project"):
        project = Project.open(project.folder)
    with serving(project) as (ask, _), timed("what the page shows, in order"):
        ask("GET", "project")
    with timed("save one stroke"):
        project.save_mask(names[0], labels, version=1)
    with timed("review one scan"):
        project.review(names[1], status="accepted")


def ct_project(folder: Path, slices: int) -> Project:
    """Make a project of one big scan."""
    shape = (512, 512, slices)
    (folder / "scans").mkdir()
    nib.save(nib.Nifti1Image(body(shape, 4)[0], np.diag([-0.75, -0.75, 1, 1])), folder / "scans" / "ct.nii.gz")
    return Project.create(folder / "project", [folder / "scans"], structures=ONE)


def in_browser(folder: Path, slices: int) -> None:
    """Time the page with one big scan: until it can be scrolled and drawn on, and until all of it is painted."""
    from playwright.sync_api import sync_playwright

    project = ct_project(folder, slices)
    with serving(project) as (_, url), sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        tab = playwright.chromium.launch(executable_path=found, args=list(NO_GRAPHICS_CARD)).new_page()
        tab.add_init_script(MARKS)
        tab.goto(url)
        tab.wait_for_selector('body[data-ready="ct"]', timeout=300_000)
        tab.evaluate(FINISH)
        tab.wait_for_function("() => !window.workbench.viewer.gray.waiting.length", timeout=300_000)
        tab.evaluate(FINISH)
        for name, at_ms in tab.evaluate("() => window.marks"):
            print(f"{name:40} {at_ms / 1000:7.2f} s after the page was asked for")


def big_ct(folder: Path, slices: int) -> None:
    """Time the server with one big scan."""
    project = ct_project(folder, slices)
    with serving(project) as (ask, _):
        with timed("read the scan, and facts for the page"):
            ask("GET", "case", case="ct")
        with timed("voxels for the page"):
            ask("GET", "scan", case="ct")
        stroke = pack(np.ones((60, 60, 1), np.uint8))
        for version in range(3):
            with timed(f"save stroke {version + 1}"):
                about = {"case": "ct", "version": version, "plane": 2, "drawn": 100}
                ask("PUT", "mask", stroke, box="200,260,200,260,100,101", **about)
        with timed("read the mask"):
            ask("GET", "mask", case="ct")


def main() -> None:
    """Run one of the three in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("scans", "ct", "page"))
    parser.add_argument("--number", type=int, default=1000)
    parser.add_argument("--slices", type=int, default=600)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="workbench_load_") as folder:
        if given.what == "scans":
            many_scans(Path(folder), given.number)
        else:
            {"ct": big_ct, "page": in_browser}[given.what](Path(folder), given.slices)


if __name__ == "__main__":
    main()
