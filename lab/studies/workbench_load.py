"""How fast is the workbench with many scans, and with a big one? Times of the server, without the browser.

    python -m lab.studies.workbench_load scans --number 1000
    python -m lab.studies.workbench_load ct --slices 600

``scans`` makes a project of tiny scans, all with drafts, half of them with masks. ``ct`` makes a CT of 512x512 voxels a
slice, opens it as the page does, and saves strokes. Wall-clock and processor seconds of each step are printed.
"""

from __future__ import annotations

import argparse
import http.client
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
from medfewshot.workbench.export import Exported
from medfewshot.workbench.masks import pack
from medfewshot.workbench.routes import Exports
from medfewshot.workbench.server import LOCAL, build_app, free_port, make_server

TOKEN = "study"
ONE = (Structure("structure", 1, "#ff0000"),)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print the time of a block."""
    wall, processor = time.perf_counter(), time.process_time()
    yield
    seconds = time.perf_counter() - wall, time.process_time() - processor
    print(f"{what:40} {seconds[0]:7.3f} s, processor {seconds[1]:7.3f} s", flush=True)


@contextmanager
def serving(project: Project) -> Iterator[Callable[..., int]]:
    """Run a server; gives a function that sends a request, and returns the bytes of the answer."""
    app = build_app(project, Jobs(project), token=TOKEN, exports=Exports({}, lambda names: Exported()))
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

    yield ask
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
    with serving(project) as ask, timed("what the page shows, in order"):
        ask("GET", "project")
    with timed("save one stroke"):
        project.save_mask(names[0], labels, version=1)
    with timed("review one scan"):
        project.review(names[1], status="accepted")


def big_ct(folder: Path, slices: int) -> None:
    """Time the server with one big scan."""
    shape = (512, 512, slices)
    (folder / "scans").mkdir()
    nib.save(nib.Nifti1Image(body(shape, 4)[0], np.diag([-0.75, -0.75, 1, 1])), folder / "scans" / "ct.nii.gz")
    project = Project.create(folder / "project", [folder / "scans"], structures=ONE)
    with serving(project) as ask:
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
    """Run one of the two in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("scans", "ct"))
    parser.add_argument("--number", type=int, default=1000)
    parser.add_argument("--slices", type=int, default=600)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="workbench_load_") as folder:
        if given.what == "scans":
            many_scans(Path(folder), given.number)
        else:
            big_ct(Path(folder), given.slices)


if __name__ == "__main__":
    main()
