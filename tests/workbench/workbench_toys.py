"""A workbench to test: phantoms, a project, jobs that learn nothing, a server in a thread, and a page in Chromium."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medfewshot.errors import InputError
from medfewshot.workbench import Project, Structure
from medfewshot.workbench.server import build_app, free_port, make_server

TOKEN = "a-token-of-the-test"
SHAPE = (36, 40, 24)


def ball(shape: Sequence[int] = SHAPE, *, shift: Sequence[float] = (0, 0, 0), radius: float = 8) -> np.ndarray:
    """A ball in the middle, ``shape`` bool."""
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum((a - n / 2 - s) ** 2 for a, n, s in zip(axes, shape, shift, strict=True)) < radius**2


def write_phantom(
    path: Path, *, seed: int = 0, affine: np.ndarray | None = None, shape: Sequence[int] = SHAPE
) -> np.ndarray:
    """A scan with a bright ball in noise; its mask."""
    rng = np.random.default_rng(seed)
    mask = ball(shape, shift=rng.uniform(-2, 2, len(shape)))
    image = 100 + 200 * mask + rng.normal(0, 8, shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(image.astype(np.int16), np.eye(4) if affine is None else affine), path)
    return mask


def make_project(folder: Path, *, scans: int = 4, structures: Sequence[Structure] = ()) -> Project:
    """A project of phantoms with nothing labelled."""
    for i in range(scans):
        write_phantom(folder / "scans" / f"scan_{i}.nii.gz", seed=i)
    return Project.create(folder / "project", [folder / "scans"], structures=structures)


class ThresholdJobs:
    """Jobs that draft by a threshold, in a blink."""

    def __init__(self, project: Project, *, confidence: float = 0.8) -> None:
        self.project, self.confidence = project, confidence
        self.learned: list[str | None] = []
        self._state: dict[str, Any] = {"status": "idle"}

    def start_learn(self, *, open_case: str | None) -> str:
        if not self.project.examples():
            raise InputError("there is no example to learn from", "draw a structure in one scan first")
        value = self.project.structures[0].value
        self.learned.append(open_case)
        for case in self.project.cases():
            image = np.asarray(nib.load(case.scan).dataobj)
            self.project.write_draft(case.name, (value * (image > 200)).astype(np.uint8), confidence=self.confidence)
        self._state = {"status": "done", "stage": "done", "done": 1, "total": 1, "message": "All scans have drafts."}
        return str(len(self.learned))

    def cancel(self) -> None:
        self._state = {"status": "idle"}

    def state(self) -> dict[str, Any]:
        return dict(self._state)


@contextmanager
def serving(project: Project, jobs: Any = None, *, port: int = 0, token: str = TOKEN) -> Iterator[str]:
    """The address of a running workbench, with its token."""
    app = build_app(project, jobs or ThresholdJobs(project), token=token)
    listener = free_port("127.0.0.1", port)
    server = make_server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/?token={token}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
