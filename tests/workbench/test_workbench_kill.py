"""``kill -9`` of the server while it saves and drafts: every file is whole, and what was acknowledged is there."""

from __future__ import annotations

import http.client
import multiprocessing
import os
import signal
import sys
from urllib.parse import urlencode

import nibabel as nib
import numpy as np
import pytest
from workbench_toys import SHAPE, TOKEN, make_project

from medfewshot.workbench import Jobs, Project, Structure
from medfewshot.workbench.masks import pack
from medfewshot.workbench.server import build_app, free_port, make_server

KILLS = 20


class _Drafting:
    """A job that writes drafts until it is killed."""

    def __init__(self, project, **_):
        self.project = project

    def run(self):
        while self.project.write_draft("scan_1", np.full(SHAPE, 1, np.uint8), confidence=0.5):
            pass


def _serve(folder, listener):
    project = Project.open(folder)
    app = build_app(project, Jobs(project, learn=_Drafting), token=TOKEN)
    make_server(app).run(sockets=[listener])


def _put(port: int, version: int, value: int) -> int:
    """Save a mask full of one value; the status, 0 if the server is gone."""
    box = ",".join(str(edge) for size in SHAPE for edge in (0, size))
    query = urlencode({"case": "scan_0", "version": version, "box": box})
    return _ask(port, "PUT", f"/api/mask?{query}", pack(np.full(SHAPE, value, np.uint8)))


def _ask(port: int, method: str, path: str, body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, {"Authorization": f"Bearer {TOKEN}"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_kill_9_while_saving_and_learning(tmp_path):
    values = range(1, 9)
    project = make_project(tmp_path, scans=2, structures=[Structure(f"s{v}", v, "#ff0000") for v in values])
    rng = np.random.default_rng(0)
    version, acknowledged = 0, 0
    for kill in range(KILLS):
        listener = free_port("127.0.0.1", 0)
        port = listener.getsockname()[1]
        server = multiprocessing.get_context("fork").Process(target=_serve, args=(project.folder, listener))
        server.start()
        listener.close()
        assert _put(port, version, values[version % 8]) == 200
        version, acknowledged = version + 1, values[version % 8]
        if kill % 2:
            assert _ask(port, "POST", "/api/learn", b"{}") == 200
        killer = multiprocessing.get_context("fork").Process(target=_kill_soon, args=(server.pid, rng.uniform(0, 0.08)))
        killer.start()
        while _put(port, version, values[version % 8]) == 200:
            version, acknowledged = version + 1, values[version % 8]
        killer.join()
        server.join()

        reopened = Project.open(project.folder)
        stored = reopened.facts("scan_0").version
        labels = reopened.read_labels("scan_0")
        assert stored in (version, version + 1)  # the one in hand may have arrived
        assert (labels == (acknowledged if stored == version else values[version % 8])).all()
        version, acknowledged = stored, int(labels[0, 0, 0])
        for path in project.folder.rglob("*.nii.gz"):
            assert np.asarray(nib.load(path).dataobj).shape == SHAPE
        assert not [path for path in project.folder.rglob(".*") if path.is_file()]
    assert reopened.case("scan_1").draft > KILLS // 4


def _kill_soon(pid: int, seconds: float) -> None:
    import time

    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
