"""Jobs: one at a time, with events, cancelled at any moment; and what learning writes."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import toys

from medfewshot.errors import InputError
from medfewshot.learners import LEARNERS
from medfewshot.settings import AdaptSettings
from medfewshot.structures import dice
from medfewshot.types import Case, Progress
from medfewshot.workbench import Jobs, Project, Structure
from medfewshot.workbench.check import checks, write_checks
from medfewshot.workbench.choice import Assessment, in_order_of_need, suggest
from medfewshot.workbench.learn import Draft, Learning
from medfewshot.workbench.session import LabelSession
from medfewshot.workbench.uncertainty import read_uncertainty
from medfewshot.workflow import adapt, read_supports

SHAPE = (24, 22, 20)
BLOCK = Structure("block", 1, "#ff0000")


def scan(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright block in noise, and its label."""
    rng = np.random.default_rng(seed)
    low = rng.integers(4, 7, 3)
    labels = np.zeros(SHAPE, np.uint8)
    labels[tuple(slice(one, one + 10) for one in low)] = 1
    return (labels * 6 + rng.normal(size=SHAPE)).astype(np.float32), labels


@pytest.fixture
def project(tmp_path: Path) -> Project:
    for seed, name in enumerate("abc"):
        path = tmp_path / "scans" / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(scan(seed)[0], np.eye(4)), path)
    return Project.create(tmp_path / "project", [tmp_path / "scans"], structures=(BLOCK,))


class Fake:
    """A job that does what it is told to."""

    def __init__(self, work: Callable[[Progress], None]) -> None:
        self.work = work

    def __call__(self, project: Project, *, progress: Progress, **_: Any) -> Fake:
        self.progress = progress
        return self

    def run(self) -> None:
        self.work(self.progress)


def test_a_job_tells_what_it_does_and_ends(project: Project) -> None:
    project.save_mask("a", scan(0)[1], version=0)
    jobs = Jobs(project, learn=Fake(lambda progress: progress.at("drawing").update(1, 4, "half")))
    assert (jobs.state()["status"], jobs.state()["running"]) == ("idle", False)
    assert jobs.start_learn(open_case="a") == "1"
    jobs.wait()
    assert jobs.state() | {"seconds": 0} == {
        "id": "1", "running": False, "status": "done", "stage": "drawing", "case": "a", "done": 1, "total": 4,
        "seconds": 0, "seconds_left": None, "message": "half", "error": "", "warnings": [],
    }  # fmt: skip


def test_a_second_job_waits_and_a_cancelled_one_stops_at_the_next_step(project: Project) -> None:
    project.save_mask("a", scan(0)[1], version=0)
    begun = threading.Event()

    def endless(progress: Progress) -> None:
        while True:
            begun.set()
            progress.update(0, 1)

    jobs = Jobs(project, learn=Fake(endless))
    jobs.start_learn()
    begun.wait()
    with pytest.raises(InputError):
        jobs.start_learn()
    jobs.cancel()
    jobs.wait(20)
    assert jobs.state()["status"] == "cancelled"


@pytest.mark.parametrize("error", [InputError("a.nii.gz: is broken"), OSError(28, "No space left", "x"), KeyError("k")])
def test_a_job_that_fails_says_why_in_one_line(project: Project, error: Exception) -> None:
    project.save_mask("a", scan(0)[1], version=0)

    def fail(progress: Progress) -> None:
        raise error

    jobs = Jobs(project, learn=Fake(fail))
    jobs.start_learn()
    jobs.wait()
    state = jobs.state()
    assert state["status"] == "failed"
    assert state["error"]
    assert "\n" not in state["error"]


def test_without_an_example_there_is_nothing_to_learn(project: Project) -> None:
    with pytest.raises(InputError):
        Jobs(project).start_learn(open_case="a")
    with pytest.raises(InputError):
        Jobs(project).start_learn(open_case="nobody")


def learn(project: Project, open_case: str | None) -> None:
    toy = AdaptSettings(learner="toy")
    Learning(project, open_case=open_case, progress=Progress(), device="cpu", instant=toy).run()


def test_three_drawn_slices_of_one_scan_give_drafts_of_all(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    toys.install(monkeypatch)
    project.change_settings({"learner": "toy"})
    _, labels = scan(0)
    drawn = np.where(np.isin(np.arange(SHAPE[2]), [5, 9, 13]), labels, 0).astype(np.uint8)
    project.save_mask("a", drawn, version=0, drawn=[5, 9, 13], axis=2)
    learn(project, "b")
    for seed, name in enumerate("abc"):
        draft = project.read_draft(name)
        assert draft is not None
        assert dice(draft == 1, scan(seed)[1] == 1) > 0.9
    assert [project.case(name).draft for name in "abc"] == [1, 2, 1]  # the open case had an instant draft before
    assert np.array_equal(project.read_labels("a"), drawn)
    session = LabelSession(project.folder / "segmenters", device="cpu")
    suggested, _ = suggest([Case(n, n, None, (project.case(n).scan,)) for n in "abc"], session.segmenter())
    assert [case.case_id for case, _ in suggested] == [one.name for one in project.cases() if one.name != "a"]
    assert all(read_uncertainty(project, name) is not None for name in "abc")

    project.save_mask("b", scan(1)[1], version=0)
    learn(project, "c")
    assert [project.case(name).draft for name in "abc"] == [2, 2, 3]  # a complete mask keeps its draft
    assert session.current is not None
    assert session.current.name == "segmenter-0002"
    assert len(session.segmenter().record["supports"]) == 2
    assert [(row["case"], row["dice"], row["message"]) for row in checks(project)] == [("a", None, ""), ("b", None, "")]


def test_learning_imitates_the_contrast_of_the_scans_without_label(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LEARNERS, "toy", replace(toys.TOY, derived=True))
    project.change_settings({"learner": "toy"})
    noise, labels = np.random.default_rng(0).normal(0, 0.3, SHAPE), scan(0)[1]
    bright = np.zeros(SHAPE)
    bright[16:, :8] = 6
    for name, block in (("a", 6), ("b", 2)):
        image = (noise + bright + block * labels).astype(np.float32)
        nib.save(nib.Nifti1Image(image, np.eye(4)), project.case(name).scan)
    project.case("c").scan.write_bytes(b"broken")
    project.save_mask("a", labels, version=0)
    told: list[str] = []
    toy = AdaptSettings(learner="toy")
    Learning(project, open_case=None, progress=Progress(), warn=told.append, device="cpu", instant=toy).run()
    record = LabelSession(project.folder / "segmenters", device="cpu").segmenter().record
    assert record["learner"]["contrast_copies"] == 1
    assert any("block: much brighter or darker" in text for text in told)


@pytest.mark.parametrize(("gain", "used", "kept"), [(0.26, "ac", True), (0.24, "ac", False), (0.26, "abc", False)])
def test_a_clearly_better_instant_draft_stays(project: Project, gain: float, used: str, kept: bool) -> None:
    """Unless the case is an example itself: there, every segmenter expects much."""
    told: list[str] = []
    learning = Learning(project, open_case="b", progress=Progress(), warn=told.append, device="cpu")
    pairs = []
    for seed, name in enumerate("ac"):
        project.save_mask(name, scan(seed)[1], version=0, drawn=[5, 9, 13], axis=2)
        pairs.append((project.case(name).scan, project.mask_path(name)))
    toy = AdaptSettings(learner="toy")
    full = adapt(read_supports(pairs), toy.replace(ignore=255), learners={"toy": toys.TOY})
    made = learning.make_draft("b", full)
    assert 0.3 < made.confidence < 1
    labels = np.zeros_like(made.done.labels)
    labels[3, 3, 3] = 1
    instant = Draft(full, replace(made.done, labels=labels), Assessment(made.found.uncertainty - gain, 0.0))
    learning.used += used
    learning.write_drafts(full, instant)
    assert np.array_equal(project.read_draft("b"), labels if kept else made.done.labels)
    assert bool(told) == kept
    assert all("instant" in text and "b" in text for text in told)


def test_a_scan_that_cannot_be_read_is_named_and_the_others_are_used(project: Project) -> None:
    for seed, name in enumerate("ab"):
        project.save_mask(name, scan(seed)[1], version=0)
    project.case("a").scan.write_bytes(b"broken")
    told: list[str] = []
    learning = Learning(project, open_case=None, progress=Progress(), warn=told.append)
    assert len(learning.read_examples().images) == 1
    assert "a is not used" in told[0]


@pytest.mark.parametrize("is_dicom", [False, True], ids=["NIfTI", "DICOM"])
def test_one_drawn_frame_of_a_film_gives_drafts_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_dicom: bool
) -> None:
    toys.install(monkeypatch)
    frames = [scan(seed) for seed in range(3)]
    data, path = np.stack([image for image, _ in frames], -1), tmp_path / ("cine" if is_dicom else "cine.nii.gz")
    if is_dicom:
        toys.save_dicom(path, (data * 100).astype(np.int16))
    else:
        nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    project = Project.create(tmp_path / "project", [path], structures=(BLOCK,))
    project.change_settings({"learner": "toy"})
    project.save_mask("cine frame 1", frames[1][1], version=0)
    learn(project, "cine frame 0")
    for number in (0, 2):
        assert dice(project.read_draft(f"cine frame {number}") == 1, frames[number][1] == 1) > 0.9


def test_scans_of_two_channels_are_learned_and_others_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The structure is visible in the second channel alone."""
    toys.install(monkeypatch)
    (tmp_path / "scans").mkdir()
    for seed, name in enumerate("abcde"):
        image, _ = scan(seed)
        channels = np.stack([np.zeros_like(image) + seed, image], -1)[..., 1 if name in "de" else 0 :]
        written = sitk.GetImageFromArray(channels.transpose(2, 1, 0, 3), isVector=True)
        sitk.WriteImage(written, str(tmp_path / "scans" / f"{name}.nrrd"))
    project = Project.create(tmp_path / "project", [tmp_path / "scans"], structures=(BLOCK,))
    project.change_settings({"learner": "toy"})
    in_file = {name: project.read_scan(name).data[-1] > 3 for name in "abcde"}  # NRRD turns two axes
    for name in "abd":
        project.save_mask(name, in_file[name].astype(np.uint8), version=0)
    told: list[str] = []
    toy = AdaptSettings(learner="toy")
    learning = Learning(project, open_case="c", progress=Progress(), warn=told.append, device="cpu", instant=toy)
    learning.run()
    assert learning.used == ["a", "b"]
    assert told[0] == "d is not used: it is 3D with 1 channel, most examples are 3D with 2 channels"
    draft = project.read_draft("c")
    assert draft is not None
    assert dice(draft == 1, in_file["c"]) > 0.9
    told.clear()
    Learning(project, open_case="e", progress=Progress(), warn=told.append, device="cpu", instant=toy).run()
    assert [text.split(":")[0] for text in told[-2:]] == ["e has no instant draft", "e has no draft"]
    assert project.case("c").draft == 3


def test_what_to_label_next_is_high_in_both_ranks() -> None:
    assessments = {
        "a": Assessment(0.1, 0.3),
        "b": Assessment(0.5, 0.3),
        "c": Assessment(0.3, 0.1),
        "d": Assessment(0.1, 0.1),
    }
    assert in_order_of_need(assessments) == ["b", "c", "a", "d"]


def test_scans_are_suggested_that_the_segmenter_did_not_learn_from_and_bad_ones_are_named(tmp_path: Path) -> None:
    cases = []
    for number in range(4):
        path = toys.save_nifti(tmp_path / f"s{number}.nii.gz", toys.make_scan(number)[0] * (1 if number < 3 else 5))
        cases.append(Case(f"s{number}", f"s{number}", None, (path,)))
    image, label = cases[0].image_path, toys.save_nifti(tmp_path / "label.nii.gz", toys.make_scan(0)[1])
    segmenter = adapt(read_supports([(image, label)]), AdaptSettings(learner="toy"), learners={"toy": toys.TOY})
    cases[1].image_path.write_bytes(b"broken")
    copy = Path(shutil.copy(image, tmp_path / "copy.nii.gz"))
    ordered, skipped = suggest([*cases, Case("copy", "copy", None, (copy,))], segmenter)
    assert {case.case_id for case, _ in ordered} == {"s2", "s3"}
    assert len(skipped) == 1
    assert "s1.nii.gz" in skipped[0]


def test_a_check_of_the_examples_is_kept_under_the_names_of_the_cases(project: Project) -> None:
    assert checks(project) == []
    for seed, name in enumerate("ab"):
        project.save_mask(name, scan(seed)[1], version=0)
    found = [
        {"support": f"{n}.nii.gz", "dice": 0.5, "message": f"check {n}.nii.gz: it fits none" * (n == "b")} for n in "ab"
    ]
    write_checks(project, ["a", "b"], found)
    assert [row["message"] for row in checks(Project.open(project.folder))] == ["", "check b: it fits none"]
