"""A MONAI Label server on loopback, driven over HTTP as a viewer drives it. Skips where MONAI Label is not installed.

``make label`` builds an environment that has it, and runs this.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys

import medfewshot
from medfewshot.integrations.label_files import write_label_app
from medfewshot.io import read_label

if importlib.util.find_spec("monailabel") is None:
    pytest.skip(
        "MONAI Label is not installed here; it needs an environment of its own: make label", allow_module_level=True
    )

NAMES = {1: "left block", 2: "right block"}


class Server:
    """A server of an app in ``folder`` for the scans in ``folder/cohort``."""

    def __init__(self, folder: Path, *conf: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.log = folder / "server.log"
        source = str(Path(medfewshot.__file__).parents[1])
        words = ["-m", "monailabel.main", "start_server", "--app", folder / "app", "--studies", folder / "cohort"]
        words += ["--host", "127.0.0.1", "--port", port]
        words += [word for pair in zip(conf[::2], conf[1::2], strict=True) for word in ("--conf", *pair)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, words)], cwd=folder, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": source, "CUDA_VISIBLE_DEVICES": ""},
            )  # fmt: skip

    def ask(self, method: str, path: str, body: Any = None, file: Path | None = None) -> Any:
        """Answer of the server, read as JSON where it is. ``file``: sent as the field ``label`` of a form."""
        data, kind = (json.dumps(body).encode(), "application/json") if body is not None else (None, "")
        if file is not None:
            mark = uuid.uuid4().hex
            head = f'--{mark}\r\nContent-Disposition: form-data; name="label"; filename="{file.name}"\r\n\r\n'
            data, kind = (
                head.encode() + file.read_bytes() + f"\r\n--{mark}--\r\n".encode(),
                f"multipart/form-data; boundary={mark}",
            )
        request = urllib.request.Request(
            self.address + path, data, {"Content-Type": kind} if kind else {}, method=method
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            content = answer.read()
        return json.loads(content) if content[:1] in (b"{", b"[") else content

    def wait(self, question: Any, seconds: float = 300) -> Any:
        """What ``question`` answers, as soon as that is something."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                if answer := question():
                    return answer
            except (urllib.error.URLError, ConnectionError):
                pass  # it is still starting, or has no such task yet
            time.sleep(0.3)
        raise AssertionError(self.log.read_text(errors="replace")[-4000:])

    def trained(self, number: int) -> bool:
        """Whether ``number`` trainings have ended well."""
        tasks = self.ask("GET", "/train/?all=true")
        assert not [task for task in tasks if task["status"] == "ERROR"], tasks
        return [task["status"] for task in tasks].count("DONE") == number


@pytest.fixture
def server(tmp_path):
    toys.make_folders(tmp_path, queries=4)
    bright = toys.make_scan(9)[0] * 1.5 + 40
    toys.save_nifti(tmp_path / "cohort" / "zz.nii.gz", bright)
    write_label_app(tmp_path / "app", NAMES)
    for path in sorted((tmp_path / "reference").glob("*.nii.gz")):
        drawn = read_label(path).data[0]
        toys.save_nifti(path, ((drawn == 205) + 2 * (drawn == 420)).astype(np.int16))
    server = Server(tmp_path, "device", "cpu", "steps", "20")
    try:
        server.wait(lambda: server.ask("GET", "/info/"))
        yield server
    finally:
        server.process.terminate()
        server.process.wait(60)


@pytest.mark.slow
def test_the_loop_of_an_annotator(server, tmp_path):
    info = server.ask("GET", "/info/")
    assert info["models"] == {}  # nothing to run before the first label
    assert next(iter(info["strategies"])) == "fewshot"
    assert info["labels"] == {"left block": 1, "right block": 2}

    # Without a label all scans are alike, and the first one comes; its label starts an adaptation by itself.
    assert server.ask("POST", "/activelearning/fewshot", {})["id"] == "q0"
    server.ask("PUT", "/datastore/label?image=q0&tag=final", file=tmp_path / "reference" / "q0.nii.gz")
    server.wait(lambda: server.trained(1))
    model = server.wait(lambda: server.ask("GET", "/info/")["models"])["fewshot"]
    assert model["labels"] == {"left block": 1, "right block": 2}

    # The result of the server is the result of the segmenter that it keeps.
    answer = server.ask("POST", "/infer/fewshot?image=q1&output=image", {})
    (tmp_path / "answer.nii.gz").write_bytes(answer)
    current = json.loads((tmp_path / "app/model/current.json").read_text())["segmenter"]
    expected = medfewshot.segment(tmp_path / "cohort/q1.nii.gz", tmp_path / "app/model" / current, device="cpu")
    assert np.array_equal(read_label(tmp_path / "answer.nii.gz").data[0], expected.labels)
    assert set(np.unique(expected.labels)) == {0, 1, 2}

    # Every scan without a label is looked at in the background; the one that is brighter than all is asked for.
    looked = {
        name: server.wait(lambda name=name: server.ask("GET", f"/datastore/image/info?image={name}").get("fewshot"))
        for name in ("q1", "q2", "q3", "zz")
    }
    assert max(looked, key=lambda name: looked[name]["distance"]) == "zz"
    best = server.ask("POST", "/activelearning/fewshot", {})["id"]
    assert best != "q0"
    assert looked[best]["uncertainty"] >= min(look["uncertainty"] for look in looked.values())
    again = server.ask("POST", "/activelearning/fewshot", {})["id"]
    assert again not in ("q0", best)  # who does not want that one gets another

    # A second label is a second support, of a second segmenter.
    server.ask("PUT", "/datastore/label?image=q1&tag=final", file=tmp_path / "reference" / "q1.nii.gz")
    server.wait(lambda: server.trained(2))
    later = json.loads((tmp_path / "app/model/current.json").read_text())["segmenter"]
    assert later != current
    supports = json.loads((tmp_path / "app/model" / later / "segmenter.json").read_text())["record"]["supports"]
    assert len(supports) == 2
    # What the server suggests is no label of the annotator's, and starts nothing.
    server.ask("PUT", "/datastore/label?image=q2&tag=original", file=tmp_path / "reference" / "q2.nii.gz")
    assert len(server.ask("GET", "/train/?all=true")) == 2
