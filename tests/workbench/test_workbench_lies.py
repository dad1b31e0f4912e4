"""A project whose files lie opens with one clear line, or goes on with what is true."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medfewshot.errors import InputError
from medfewshot.workbench import PROJECT_FILE, Project, Structure

SHAPE = (6, 7, 5)


def block() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 2:5, 1:4] = 1
    return labels


@pytest.fixture
def project(tmp_path: Path) -> Project:
    voxels = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    return Project.create(tmp_path / "project", [tmp_path / "a.nii.gz"], structures=(Structure("x", 1, "#ff0000"),))


LIES = [
    {"format_version": 2},
    {"format_version": None},
    {"scans": {"name": "a"}},
    {"scans": [{"name": "../../etc/passwd", "path": "x"}]},
    {"scans": [{"name": ".hidden", "path": "x"}]},
    {"scans": [{"name": "a"}]},
    {"scans": [{"name": "a", "path": "x"}, {"name": "a", "path": "y"}]},
    {"structures": [{"name": "liver", "value": 0, "color": "#000000"}]},
    {"structures": [{"name": "liver", "value": 255, "color": "#000000"}]},
    {"structures": [{"name": "liver", "value": "1", "color": "#000000"}]},
    {"structures": [{"name": "a\nb", "value": 1, "color": "#000000"}]},
    {"structures": [{"name": "ignore", "value": 1, "color": "#000000"}]},
    {"structures": [{"name": "liver", "value": 1, "color": "red; background: url(//x)"}]},
    {"structures": [{"name": "x", "value": 1, "color": "#000000"}, {"name": "X", "value": 2, "color": "#000000"}]},
    {"structures": None},
    {"settings": ["learner"]},
    {"settings": {"steps": -1}},
    {"settings": {"no_such_setting": 1}},
    {"format_version": True},
    {"scans": None},
    {"scans": [3]},
    {"scans": [{"name": 3, "path": "x"}]},
    {"scans": [{"name": "a\0<b>", "path": "x"}]},
    {"scans": [{"name": "a" * 300, "path": "x"}]},
    {"scans": [{"name": "a", "path": "x\0"}]},
    {"scans": [{"name": "a", "path": ["x"]}]},
    {"scans": [{"name": "a", "path": "x" * 5000}]},
    {"structures": "liver"},
    {"structures": [["liver", 1]]},
    {"structures": [{"name": "x", "value": 1, "color": "#000000"}, {"name": "y", "value": 1, "color": "#000000"}]},
    {"structures": [{"name": "liver", "value": 10**400, "color": "#000000"}]},
    {"structures": [{"name": "liver", "value": True, "color": "#000000"}]},
    {"structures": [{"name": "liver", "value": 1.0, "color": "#000000"}]},
    {"structures": [{"name": "x" * 10**5, "value": 1, "color": "#000000"}]},
    {"structures": [{"name": "liver", "value": 1, "color": 7}]},
]


@pytest.mark.parametrize("lie", LIES)
def test_a_project_file_that_lies_is_one_line_that_names_the_file(project: Project, lie: dict[str, object]) -> None:
    path = project.folder / PROJECT_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **lie}))
    with pytest.raises(InputError) as refused:
        Project.open(project.folder)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300 + len(str(path))


def test_markup_in_a_name_stays_text_and_a_file_that_is_no_scan_is_refused(project: Project, tmp_path: Path) -> None:
    path = project.folder / PROJECT_FILE
    (tmp_path / "secret").write_text("x")
    scans = [{"name": "<b>&a", "path": "../secret"}, {"name": "b", "path": "x" * 300}]
    path.write_text(json.dumps({**json.loads(path.read_text()), "scans": scans}))
    again = Project.open(project.folder)
    assert [(case.name, bool(case.reason)) for case in again.cases()] == [("<b>&a", False), ("b", True)]
    with pytest.raises(InputError):
        again.grid("<b>&a")


@pytest.mark.parametrize(
    "row", ["t,a,accepted,1", "t,a,accepted,x,1,,", "t,a,great,1,1,,", "t,a,,1,1,nan,", "t,a,,1,1,7,"]
)
def test_reviews_that_lie_are_one_line_that_names_the_file(project: Project, row: str) -> None:
    path = project.folder / "reviews.csv"
    path.write_text(f"time,case,status,version,draft,dice,note\n{row}\n")
    with pytest.raises(InputError) as refused:
        Project.open(project.folder)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    "lie", [{"confidence": "x"}, {"confidence": float("nan")}, {"number": 0}, {"reason": 3}, {"x": 1}]
)
def test_facts_of_a_draft_that_lie_count_as_none(project: Project, lie: dict[str, object]) -> None:
    project.write_draft("a", block(), confidence=0.9)
    path = project.folder / "drafts" / "a.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **lie}))
    assert Project.open(project.folder).case("a").status == "unlabelled"


@pytest.mark.parametrize(
    "lie", [{"axis": "x"}, {"axis": 9}, {"drawn": ["x"]}, {"voxels": {"1": "many"}}, {"voxels": 3}]
)
def test_facts_of_a_mask_that_lie_are_replaced_by_what_the_mask_says(project: Project, lie: dict[str, object]) -> None:
    project.save_mask("a", block(), version=0, drawn=[2], axis=2)
    path = project.folder / "history" / "a" / "0001.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **lie}))
    facts = Project.open(project.folder).facts("a")
    assert (facts.drawn, facts.axis, facts.voxels) == ((2,), 2, {1: 27})
