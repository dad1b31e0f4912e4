"""kill -9 of ``medfewshot annotate`` at random moments: nothing that it confirmed is lost, and every file is whole.

    MEDFEWSHOT_DATA=scans/ python -m lab.studies.kill_annotate --kills 20 --seed 0

Five scans of the hippocampus without labels, and a server with the real jobs (few steps). A client draws in two scans
over HTTP while a job runs, accepts drafts, and exports. The server and its children are killed in turn while the
client draws, in each stage of a job, and while it exports. After each kill all files must be readable to their end;
each confirmed mask, review and draft must be there; and the next server continues in the same folder. At the end one
*Learn* is left alone: each scan that has no complete mask must get a new draft.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import nibabel as nib
import numpy as np

from lab.studies.kill_test import half_files, run, wait, writes_in
from medfewshot.bundle import load_segmenter
from medfewshot.io import read_image
from medfewshot.report.planes import grid_of
from medfewshot.workbench import Project, Structure
from medfewshot.workbench.mask_checks import read_stored
from medfewshot.workbench.mask_store import RECENT_VERSIONS
from medfewshot.workbench.masks import pack
from medfewshot.workbench.session import LabelSession

DRAWN, OTHERS = ("s0", "s1"), ("s2", "s3", "s4")
PHASES = ("drawing", "instant draft", "adapting", "drafts", "export")
LONGEST_S = {"drawing": 1.5, "instant draft": 6.0, "adapting": 3.0, "drafts": 4.0, "export": 3.0}
"""The kill comes at most so many seconds after the phase began."""
FORMATS = ["nifti", "seg_nrrd", "nnunet", "stl", "statistics", "bundle", "report"]
PATIENCE_S = 240.0


@dataclass
class Client:
    """What a person does at the page, and what the server has confirmed.

    Args:
        project: Folder of the project.
        truth: Case -> reference mask of the scans that are drawn in.
        rng: Source of the strokes and of the moments.
    """

    project: Path
    truth: dict[str, np.ndarray]
    rng: np.random.Generator
    versions: dict[str, int] = field(default_factory=dict)
    masks: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    in_hand: dict[str, np.ndarray] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)
    drafts: dict[str, int] = field(default_factory=dict)
    exports: int = 0

    @property
    def open(self) -> str:
        """The scan that the person looks at while a job runs."""
        return max(name for name in OTHERS if name not in self.accepted)

    def start(self) -> None:
        """Start a server in a group of its own, and wait for its address."""
        reads, writes = os.pipe()
        self.server = os.fork()  # everything is imported already
        if not self.server:
            try:
                os.setsid()
                sys.stdout = os.fdopen(writes, "w")
                run(["annotate", str(self.project), "--no-browser"])
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(writes)
        with os.fdopen(reads) as lines:
            for line in lines:
                found = re.search(r"//([\d.]+):(\d+)/\?token=(\S+)", line)
                if found:
                    self.host, self.port, self.token = found[1], int(found[2]), found[3]
                    return
        raise AssertionError(f"the server did not start: exit code {wait(self.server)}")

    def ask(self, method: str, path: str, body: bytes = b"", **query: object) -> Any:
        """Return the JSON of an answer; None if the server is gone.

        Raises:
            AssertionError: The server refuses.
        """
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_S)
        try:
            headers = {"Authorization": f"Bearer {self.token}"}
            connection.request(method, f"/api/{path}?{urlencode(query)}", body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        assert answer.status == 200, f"{method} {path} {query}: {answer.status} {content.decode()[:300]}"
        return json.loads(content)

    def draw(self, name: str) -> bool:
        """Save three slices of the reference in the whole mask, one voxel of them wrong; whether it was confirmed."""
        truth, scan = self.truth[name], read_image(self.project.parent / "scans" / f"{name}.nii.gz")
        slices = np.flatnonzero(truth.any(axis=(0, 1)))
        drawn = sorted(self.rng.choice(slices[len(slices) // 4 : -len(slices) // 4], 3, replace=False).tolist())
        mask = np.zeros_like(truth)
        mask[..., drawn] = truth[..., drawn]
        at = (*self.rng.integers(0, truth.shape[:2]), drawn[0])
        mask[at] = 1 - mask[at] % 2
        self.in_hand[name] = mask
        grid = grid_of(scan.spatial_shape, scan.affine)
        version = self.versions.get(name, 0)
        plane = int(grid.orientation[2, 0])
        places = ",".join(str(grid.file_index((plane, index))) for index in drawn)
        box = ",".join(f"0,{size}" for size in grid.shape)
        answer = self.ask(
            "PUT", "mask", pack(grid.to_ras(mask)), case=name, version=version, box=box, drawn=places, plane=plane
        )
        if answer is None:
            return False
        assert answer["version"] == version + 1
        self.versions[name] = version + 1
        self.masks[name, version + 1] = self.in_hand.pop(name)
        return True

    def facts(self) -> dict[str, Any] | None:
        """Return what the page shows of the project; None if the server is gone. Remember the drafts."""
        facts = self.ask("GET", "project")
        if facts is not None:
            self.drafts |= {case["name"]: case["draft"] for case in facts["cases"]}
        return facts

    def accept_one(self) -> None:
        """Accept the draft of one scan that nobody drew in."""
        facts = self.facts()
        waiting = [one["name"] for one in facts["cases"] if one["draft"] and not one["version"]] if facts else []
        if waiting and not self.accepted:
            self.ask("POST", "review", json.dumps({"case": min(waiting), "status": "accepted"}).encode())
            self.accepted.append(min(waiting))

    def export(self) -> None:
        """Export again and again, until the server is gone."""
        while self.ask("POST", "export", json.dumps(FORMATS).encode()) is not None:
            self.exports += 1

    def kill_in(self, phase: str) -> tuple[str, bool]:
        """Kill the server in a phase; the stage of its job at that moment, and whether it was writing a file."""
        stage, writer = "", None
        if phase in PHASES[1:4]:
            self.ask("POST", "learn", json.dumps({"case": self.open}).encode())
            stage = self.wait_for(phase)
        elif phase == "export":
            self.accept_one()
            writer = threading.Thread(target=self.export)
            writer.start()
        ends = time.monotonic() + self.rng.uniform(0, LONGEST_S[phase])
        killer = threading.Timer(ends - time.monotonic(), self.kill)
        killer.start()
        drawing = itertools.cycle(DRAWN)
        while time.monotonic() < ends and self.draw(next(drawing)):
            facts = self.facts() if stage else None
            stage = phase_of(facts["job"]) if facts else stage
        killer.join()
        if writer is not None:
            writer.join()
        return stage or phase, self.hit

    def wait_for(self, phase: str) -> str:
        """Wait until the job has come to a phase, or to its end."""
        begun = time.monotonic()
        while time.monotonic() < begun + PATIENCE_S:
            job = self.ask("GET", "project")["job"]
            assert job["status"] != "failed", job["error"]
            if phase_of(job) in (phase, "after a job"):
                return phase_of(job)
            time.sleep(0.03)
        raise AssertionError(f"no {phase} within {PATIENCE_S:.0f} s")

    def kill(self) -> None:
        """Kill the server and its children."""
        os.killpg(self.server, signal.SIGKILL)
        wait(self.server)
        self.hit = writes_in(self.project)

    def check(self) -> None:
        """Check the folder after a kill, before and after it is opened again.

        Raises:
            AssertionError: A file is damaged, or something that was confirmed is missing.
        """
        assert not (broken := half_files(self.project)), broken
        project = Project.open(self.project)
        left = [str(path) for part in ("labels", "drafts", "history") for path in (self.project / part).rglob(".*")]
        assert not left, left
        for name, version in self.versions.items():
            found = project.facts(name).version
            assert found in (version, version + 1), f"{name}: version {found} after {version} was confirmed"
            if found > version:
                self.masks[name, found] = self.in_hand[name]
                self.versions[name] = found
        for (name, version), mask in self.masks.items():
            if version > self.versions[name] - RECENT_VERSIONS:
                stored = read_stored(self.project / "history" / name / f"{version:04d}.nii.gz")
                assert np.array_equal(np.where(stored == 255, 0, stored), mask), f"{name}: version {version} differs"
        for name, version in self.versions.items():
            assert np.array_equal(project.read_labels(name), self.masks[name, version]), f"{name}: is not the newest"
        for name in self.accepted:
            assert project.case(name).status == "accepted", f"{name}: {project.case(name).status}"
        for name, number in self.drafts.items():
            assert project.case(name).draft >= number, f"{name}: draft {project.case(name).draft}, was {number}"
        session = LabelSession(self.project / "segmenters")
        if session.current is not None:
            load_segmenter(session.current)

    def learn_to_the_end(self) -> None:
        """Learn once without a kill. Raises AssertionError if a scan without a complete mask has no new draft."""
        before = {case["name"]: case["draft"] for case in self.facts()["cases"]}
        self.ask("POST", "learn", json.dumps({"case": self.open}).encode())
        self.wait_for("after a job")
        facts = self.facts()
        missing = [text for text in facts["job"]["warnings"] if "has no draft" in text]
        assert (facts["job"]["status"], missing) == ("done", []), facts["job"]
        for case in facts["cases"]:
            assert case["draft"] > (-1 if case["name"] in self.accepted else before[case["name"]]), case
            assert case["draft"], case
        self.ask("POST", "export", json.dumps(FORMATS).encode())


def phase_of(job: dict[str, Any]) -> str:
    """Return the phase of a job: adapting has stages of its own, which depend on the learner."""
    if not job["running"]:
        return "after a job"
    return str(job["stage"]) if job["stage"] in ("", "reading supports", "instant draft", "drafts") else "adapting"


def make_project(folder: Path, steps: int) -> dict[str, np.ndarray]:
    """Make a project of five scans without labels; the reference masks of those that are drawn in."""
    task = Path(os.environ["MEDFEWSHOT_DATA"]) / "Task04_Hippocampus"
    scans = sorted((task / "imagesTr").glob("hippo*.nii.gz"))[:5]
    (folder / "scans").mkdir()
    for number, scan in enumerate(scans):
        shutil.copy(scan, folder / "scans" / f"s{number}.nii.gz")
    structures = [Structure("anterior", 1, "#ff0000"), Structure("posterior", 2, "#00ff00")]
    project = Project.create(folder / "project", [folder / "scans"], structures=structures)
    project.change_settings({"steps": steps})
    names = [scan.name for scan in scans[: len(DRAWN)]]
    return {
        case: np.asarray(nib.load(task / "labelsTr" / name).dataobj).astype(np.uint8)
        for case, name in zip(DRAWN, names, strict=True)
    }


def main() -> None:
    """Kill, check and open again; then learn to the end, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10, help="training steps of a full adaptation")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    import medfewshot.cli.annotate
    import medfewshot.cli.console
    import medfewshot.workbench.export
    import medfewshot.workbench.server  # noqa: F401

    root = Path(tempfile.mkdtemp(prefix="kill_annotate_"))
    client = Client(root / "project", make_project(root, given.steps), np.random.default_rng(given.seed))
    tally: Counter[tuple[str, bool]] = Counter()
    try:
        for number in range(given.kills):
            client.start()
            if not number:
                assert all(client.draw(name) for name in DRAWN)
            stage, hit = client.kill_in(PHASES[number % len(PHASES)])
            client.check()
            tally[stage, hit] += 1
            print(f"{number + 1}: killed in {stage}, versions {client.versions}", file=sys.stderr, flush=True)
        client.start()
        client.learn_to_the_end()
    finally:
        with suppress(ProcessLookupError):
            client.kill()
    client.check()
    print("| killed in | kills | while a file was written |\n|---|---|---|")
    for stage in sorted({stage for stage, _ in tally}, key=[*PHASES, *{stage for stage, _ in tally}].index):
        print(f"| {stage} | {tally[stage, False] + tally[stage, True]} | {tally[stage, True]} |")
    masks, reviews = sum(client.versions.values()), len(client.accepted)
    print(f"\n{masks} masks and {reviews} reviews confirmed, {client.exports} exports ended; nothing of it is lost.")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
