"""Two results of the same scans: what is matched, what is written, and what is refused with one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import toys

from medfewshot.errors import InputError
from medfewshot.settings import EvaluateSettings
from medfewshot.workflow import compare


def reader(root: Path, name: str, shift: int, cases: int = 6, values: tuple[int, int] = toys.VALUES) -> Path:
    """Label maps of one reader, shifted by voxels along the first axis."""
    for number in range(cases):
        _, label = toys.make_scan(10 + number, values=values)
        toys.save_nifti(root / name / f"q{number}.nii.gz", np.roll(label, shift, axis=0))
    return root / name


def as_run(folder: Path, names: dict[int, str], *, finished: bool = True, scans: Path | None = None) -> Path:
    """Make a folder of label maps the folder of a run."""
    outputs = [
        {"case": path.name[:2], "inputs": [str((scans or folder) / path.name)], "status": "done", "labels": path.name}
        for path in sorted(folder.glob("*.nii.gz"))
    ]
    record = {"finished": "2026" if finished else None, "plan": {"labels": names}, "outputs": outputs}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_two_runs_against_references(tmp_path):
    toys.make_folders(tmp_path, queries=3)
    names = {205: "left", 420: "right"}
    first, second = (
        as_run(reader(tmp_path, n, s, cases=3), names, scans=tmp_path / "cohort") for n, s in (("a", 1), ("b", 0))
    )
    (second / "reviews.csv").write_text("case,status,dice\nq0,rejected,\n")
    found = compare(first, second, reference=tmp_path / "reference", folder=tmp_path / "out")
    dice = {row.structure: row for row in found.differences if row.measure == "dice"}
    assert list(dice) == ["left", "right"]
    # Blocks of 4 and 5 voxels along the shifted axis: 1 voxel costs a quarter and a fifth.
    assert (dice["left"].first, dice["left"].second) == pytest.approx(((0.75 + 0.8 + 0.75) / 3, 1))
    assert found.changes["q0"] == pytest.approx(0.25)
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        "comparison.csv", "cases.csv", "data_dictionary.csv", "bland_altman.png", "comparison.html",
    }  # fmt: skip
    toys.assert_columns_described(out)
    assert len(rows(out / "comparison.csv")) == 6
    assert {(row["case"], row["second_review_status"]) for row in rows(out / "cases.csv")} >= {("q0", "rejected")}
    page = (out / "comparison.html").read_text()
    assert page.count("data:image/jpeg") == 3
    assert "<script" not in page


def test_a_reader_against_a_run_by_value_and_two_runs_by_name(tmp_path):
    """The reader's files name nothing; the other run numbers the same structures otherwise."""
    run = as_run(reader(tmp_path, "run", 0), {205: "left", 420: "right"})
    found = compare(reader(tmp_path, "reader", 1), run)
    assert [row.structure for row in found.differences] == ["left", "right"]
    other = as_run(reader(tmp_path, "other", 0, values=(1, 2)), {1: "Left", 2: "cyst"})
    found = compare(other, run)
    assert [(row.structure, row.difference) for row in found.differences] == [("left", 0)]
    assert any("only in one of the two" in text and "right" in text for text in found.warnings)
    assert any("identical" in text for text in found.warnings)


def test_only_the_structures_asked_for(tmp_path):
    first, second = reader(tmp_path, "a", 1), reader(tmp_path, "b", 0)
    found = compare(first, second, EvaluateSettings(labels=(420,)))
    assert [row.structure for row in found.differences] == ["label 420"]


def test_what_the_numbers_cannot_show_is_a_warning(tmp_path):
    toys.make_folders(tmp_path, queries=2)
    first, second = reader(tmp_path, "a", 1, cases=3), reader(tmp_path, "b", 0, cases=4)
    warnings = "\n".join(compare(first, second, reference=tmp_path / "reference").warnings)
    assert "1 of 4 segmentations" in warnings
    assert "1 of 3 scans have no reference" in warnings
    assert "with 2 scans and 6 test(s), no corrected p-value" in warnings
    (tmp_path / "reference" / "dataset.json").write_text("{ broken")
    assert any("scored by number" in text for text in compare(first, second, reference=tmp_path / "reference").warnings)
    one = reader(tmp_path, "one", 1, cases=1)
    assert any("one scan" in text for text in compare(one, second).warnings)


@pytest.mark.parametrize("shape", [(8, 8, 4), (8, 8)])
def test_structures_of_one_result_alone_are_named(tmp_path, shape):
    for name, value in (("a", 1), ("b", 2)):
        data = np.full(shape, 3, np.uint8)
        data[2:5, 2:5] = value
        toys.save_nifti(tmp_path / name / "z1.nii.gz", data)
    warnings = compare(tmp_path / "a", tmp_path / "b").warnings
    assert any("every scan: 1, 2;" in text for text in warnings)


def test_bad_input_is_one_line(tmp_path):
    first, second = reader(tmp_path, "a", 1, cases=1), reader(tmp_path, "b", 0, cases=1)
    with pytest.raises(InputError, match="given twice"):
        compare(first, first)
    with pytest.raises(InputError, match="a label value is ignored, and no reference has it"):
        compare(first, second, EvaluateSettings(ignore=3))
    others = as_run(reader(tmp_path, "c", 0, cases=1), {1: "kidney"})
    with pytest.raises(InputError, match=r"no structure in common \(liver; kidney\)"):
        compare(as_run(first, {205: "liver"}), others)
    with pytest.raises(InputError, match="not finished"):
        compare(as_run(first, {205: "liver"}, finished=False), second)
    (first / "run.json").unlink()
    toys.save_nifti(tmp_path / "d" / "z9.nii.gz", toys.make_scan(1)[1])
    with pytest.raises(InputError, match="no segmentation in"):
        compare(first, tmp_path / "d")
    with pytest.raises(InputError, match="has the case id of a reference"):
        compare(first, second, reference=tmp_path / "d")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cases.csv").write_text("mine")
    with pytest.raises(InputError, match="no result of compare"):
        compare(first, second, folder=tmp_path / "out")
